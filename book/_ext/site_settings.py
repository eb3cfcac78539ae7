"""Take what the whole project shares from settings.ini: title, version, repository and licence."""
import configparser
import os
import time
from pathlib import Path

SETTINGS = Path(__file__).resolve().parents[2] / "settings.ini"


def read_settings():
    """Return the entries of settings.ini."""
    parser = configparser.ConfigParser(delimiters=["="])
    parser.read(SETTINGS, encoding="utf-8")
    return parser["DEFAULT"]


def tag(settings):
    """Return the tag of the release that the site belongs to: what readers run comes from there."""
    return f"v{settings['version']}"


def build_date():
    """Return the day of the build in UTC, or the one that a reproducible build prescribes."""
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def footer(settings):
    """Return the HTML at the foot of every page."""
    return (f'{settings["title"]} {settings["version"]}, built on {build_date()} (UTC)<br>'
            f'© {settings["copyright"]}; Apache License 2.0')


def use_settings(app, config):
    """Put the shared settings where Sphinx and the theme look for them."""
    settings = read_settings()
    config.project = config.html_title = settings["title"]
    config.version = config.release = settings["version"]
    config.author = settings["author"]
    config.html_baseurl = settings["doc_host"] + settings["doc_baseurl"]
    config.html_theme_options.update(
        logo={"text": settings["title"], "alt_text": settings["title"]},
        repository_url=settings["git_url"],
        repository_branch=tag(settings),
        path_to_docs=settings["nbs_path"],
        extra_footer=footer(settings),
    )


def edit_the_branch(app):
    """Let "Suggest edit" lead to the branch that takes changes, for a release takes none."""
    app.config.html_context["github_version"] = read_settings()["branch"]


def show_the_release(app, pagename, templatename, context, doctree):
    """Let the button of the repository lead to the files of the release."""
    settings = read_settings()
    for group in context["header_buttons"]:
        for button in group.get("buttons", []):
            if button.get("label") == "source-repository-button":
                button["url"] = f"{settings['git_url']}/tree/{tag(settings)}"


def setup(app):
    app.connect("config-inited", use_settings)
    # after the theme, which takes both from one option
    app.connect("builder-inited", edit_the_branch, priority=900)
    app.connect("html-page-context", show_the_release, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

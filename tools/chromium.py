"""Find a Chromium for playwright to drive, or install one where that is possible."""
import os
import shutil
import subprocess
import sys

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]

# No sandbox, because containers run as root; nothing in the background, because tests count requests.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]


class NoChromium(Exception):
    """No Chromium is installed, and none can be; the message says what was tried."""


def installed():
    """Return the path of an installed Chromium, None where there is none."""
    named = os.environ.get("CHROMIUM")
    if named:
        path = shutil.which(named)
        if path is None:
            raise NoChromium(f"CHROMIUM={named} is not a program")
        return path
    return next(filter(None, map(shutil.which, NAMES)), None) or from_playwright()


def from_playwright():
    """Return the path of the Chromium that playwright has downloaded before, None where it has not."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if os.path.exists(path) else None


def commands():
    """Yield the ways to install it, each a list of commands."""
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        yield [["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]]
    yield [[sys.executable, "-m", "playwright", "install", "chromium"]]


def run(command):
    """Run an installation command; return what it said where it failed, else None."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (done.stderr or done.stdout).strip().splitlines()
    return None if done.returncode == 0 else said[-1] if said else f"exit status {done.returncode}"


def find_or_install():
    """Return the path of a Chromium; raise NoChromium where there is none and none can be installed."""
    path = installed()
    tried = []
    for steps in commands():
        if path:
            break
        problem = next(filter(None, map(run, steps)), None)
        path = installed()
        tried.append(f"{' '.join(steps[-1])}: {problem or 'brought none'}")
    if not path:
        raise NoChromium(f"no Chromium on the PATH, and none could be installed ({'; '.join(tried)})")
    return path


if __name__ == "__main__":
    print(find_or_install())

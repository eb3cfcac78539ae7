"""The explorers in a JupyterLab with a live kernel, driven in headless Chromium."""
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from textwrap import dedent
from urllib.error import URLError
from urllib.request import urlopen

import execute_notebooks
import nbformat
import numpy as np
import pytest
from conftest import HANG, STEP_HANGS, until, watched_page
from test_explorers_site import decoded, picture

from vae_tutorial.saving import load_pretrained

pytestmark = pytest.mark.deep

WINDOW = (1000, 1100)
MODEL = "mnist-mlp-2d"
CELLS = [
    f"""
    from vae_tutorial.data import load_data
    from vae_tutorial.explorers import LatentExplorer
    from vae_tutorial.saving import load_pretrained

    explorer = LatentExplorer(load_pretrained("{MODEL}"), load_data(), n=100)
    moves = []
    explorer.observe(lambda change: moves.append(change.new), "z")
    """,
    "explorer",
]
SHEET = [
    f"""
    from vae_tutorial.explorers import DrawExplorer
    from vae_tutorial.saving import load_pretrained

    explorer = DrawExplorer(load_pretrained("{MODEL}"), n=50)
    """,
    "explorer",
]
STYLES = [
    """
    import torch
    from vae_tutorial.conditional import ConditionalVAE
    from vae_tutorial.data import load_data
    from vae_tutorial.explorers import ConditionalExplorer

    torch.manual_seed(0)
    model = ConditionalVAE(hidden_dims=(16,), latent_dim=2)
    explorer = ConditionalExplorer(model, load_data("mnist", source="sample"), n=50)
    read = lambda: model.given(explorer.label).code(explorer.image[None] / 255)[0]
    is_read = lambda: (read() - torch.tensor(explorer.z)).abs().max().item() < 0.01
    """,
    "explorer",
]

# As a reader starts it, but for what would be fetched from other hosts, and with the state of widgets saved at once.
SETTINGS = {
    "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"},
}
OPTIONS = ["--allow-root", "--no-browser", "--ServerApp.port=0", "--LabApp.extension_manager=readonly",
           "--LabApp.expose_app_in_browser=True"]

KERNEL_IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
ASK = """async (code) => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel, said = [];
  const request = kernel.requestExecute({ code });
  request.onIOPub = ({ content }) => said.push(content.text ?? content.evalue ?? "");
  await request.done;
  return said.join("");
}"""

Lab = namedtuple("Lab", "address token folder")


@pytest.fixture(scope="session")
def lab(browser, tmp_path_factory):
    """Return a JupyterLab that knows no settings of the user, and the folder of its notebooks."""
    home = tmp_path_factory.mktemp("lab")
    folder, settings = home / "notebooks", home / "config" / "labconfig" / "default_setting_overrides.json"
    folder.mkdir()
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(SETTINGS), encoding="utf-8")
    places = {f"JUPYTER_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    places |= {f"JUPYTERLAB_{kind}_DIR": str(home / kind.lower()) for kind in ("SETTINGS", "WORKSPACES")}
    log = home / "log.txt"
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen([sys.executable, "-m", "jupyterlab", *OPTIONS], cwd=folder, stdout=output, stderr=output,
                                   env=os.environ | places | {"IPYTHONDIR": str(home)}, start_new_session=True)
    try:
        yield Lab(*await_server(process, home / "runtime", log), folder)
    finally:
        stop(process)


def await_server(process, runtime, log):
    """Return address and token of a Jupyter server that is starting, as soon as it answers."""
    def server():
        if process.poll() is not None:
            pytest.fail(f"JupyterLab ended at once:\n{log.read_text()}", pytrace=False)
        # The file is there before it is written, and before the server listens.
        told = next((json.loads(text) for path in runtime.glob("jpserver-*.json") if (text := path.read_text())), None)
        try:
            return told and urlopen(f"{told['url']}api", timeout=STEP_HANGS).close() or told
        except URLError:
            return None

    told = until(server, "answer of JupyterLab")
    return told["url"], told["token"]


def stop(process):
    """End a Jupyter server: it ends its kernels, which have process groups of their own, unless it hangs."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=STEP_HANGS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Notebook:
    """A notebook that is open in JupyterLab."""

    def __init__(self, page, complaints):
        self.page, self.complaints = page, complaints
        page.wait_for_function(KERNEL_IDLE)

    def do(self, command):
        """Run one of JupyterLab's commands, as its menus do."""
        self.page.evaluate("command => jupyterapp.commands.execute(command).then(() => null)", command)

    def trust(self):
        """Trust a notebook that was run by somebody else, as JupyterLab asks its readers to."""
        self.page.evaluate("void jupyterapp.commands.execute('notebook:trust')")
        self.page.get_by_role("button", name="Trust").click()

    def ask(self, code):
        """Run code in the kernel beside the cells; return what it prints, or its error."""
        return self.page.evaluate(ASK, code).strip()

    def explorer(self):
        """Return the explorer that is shown, once it is drawn."""
        self.page.wait_for_selector(".vae-explorer")
        return self.page.locator(".vae-explorer")

    def picture(self):
        """Return the grey values that the explorer has drawn, shape (28, 28)."""
        return picture(self.explorer().get_by_role("img", name="image decoded at"))

    def shows(self, z):
        """Say whether the picture is the one that PyTorch decodes at `z`, to one grey level."""
        return (self.picture() - decoded(load_pretrained(MODEL), z)).abs().max() <= 1

    def z(self):
        """Return the explorer's z as Python has it."""
        return json.loads(self.ask("print(explorer.z)"))


def write_notebook(path, sources=CELLS):
    """Write the notebook that the tests open."""
    cells = [nbformat.v4.new_code_cell(dedent(source).strip()) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


@pytest.fixture(scope="session")
def open_notebook(browser, lab):
    """Return a function that opens a notebook of the lab's folder."""
    def open_page(name):
        page, complaints = watched_page(browser, lab.address, WINDOW)
        page.goto(f"{lab.address}doc/tree/{name}?token={lab.token}")
        return Notebook(page, complaints)

    return open_page


@pytest.fixture(scope="session")
def live(open_notebook, lab):
    """Return a notebook whose cells have run."""
    write_notebook(lab.folder / "live.ipynb")
    notebook = open_notebook("live.ipynb")
    notebook.do("notebook:run-all-cells")
    notebook.explorer()
    return notebook


@pytest.fixture
def explorer(live):
    """Return the explorer of the live notebook, moved to the origin; nothing may have gone wrong at the end."""
    live.ask("explorer.z = [0, 0]; moves.clear()")
    until(lambda: live.shows([0, 0]), "picture of the origin")
    yield live.explorer()
    assert not live.complaints


def python_sees(notebook, is_there):
    """Wait until Python has observed a move to a place where `is_there(z)`; the picture must be the one decoded there."""
    def last_move():
        z = notebook.z()
        return notebook.ask("print(moves[-1:])") == f"[{z}]" and is_there(z) and z

    z = until(last_move, "such move in Python")
    until(lambda: notebook.shows(z), f"picture of {z}")


def test_keys_and_sliders_move_the_point_and_python_sees_it(live, explorer):
    """What else a hand can do is tried on the site."""
    plane = explorer.get_by_role("application")
    plane.focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowUp"):
        live.page.keyboard.press(key)
    python_sees(live, lambda z: z[0] > 0 and z[1] > 0)
    row, before = explorer.locator(".widget-slider", has_text="z1"), live.z()
    row.locator(".widget-readout").fill("-1.5")
    live.page.keyboard.press("Enter")
    python_sees(live, lambda z: z == [before[0], -1.5])


@pytest.mark.parametrize("z", [[1.0, -1.0], [1 / 3, -2 / 3]], ids=["on the sliders' steps", "between them"])
def test_python_moves_the_picture(live, explorer, z):
    live.ask(f"explorer.z = {z}")
    until(lambda: live.shows(z), f"picture of {z}")
    readouts = explorer.locator(".widget-readout").all_inner_texts()
    assert sorted(float(text.replace("−", "-")) for text in readouts) == sorted(round(value, 2) for value in z)
    assert json.loads(live.ask("print(moves)")) == [z], "the front end answered with a move of its own"


def test_keys_in_an_explorer_are_not_the_notebooks(live, explorer):
    buttons = explorer.get_by_role("button").all()
    for part in [explorer.get_by_role("application"), explorer.get_by_role("slider").first, *buttons]:
        part.focus()
        for key in ("b", "ArrowDown"):
            live.page.keyboard.press(key)
        assert part.evaluate("part => part === document.activeElement")
    assert live.page.locator(".jp-Cell").count() == len(CELLS)


def test_cell_runs_again(live, explorer):
    live.do("notebook:run-all-cells")
    until(lambda: live.ask("print(moves)") == "[]", "new explorer in Python")
    explorer.get_by_role("application").focus()
    live.page.keyboard.press("ArrowLeft")
    python_sees(live, lambda z: z[0] < 0)
    assert explorer.count() == 1


def still_answers(notebook, z):
    """See that an explorer without Python shows a code, and moves when a key is pressed."""
    until(lambda: notebook.shows(z), f"picture of {z}")
    notebook.explorer().get_by_role("application").focus()
    notebook.page.keyboard.press("Shift+ArrowLeft")
    until(lambda: not notebook.shows(z), "other picture")
    assert not notebook.complaints


def test_saved_notebook_shows_the_explorer_when_it_is_opened_again(live, explorer, open_notebook, lab):
    live.ask("explorer.z = [1, -1]")
    until(lambda: live.shows([1, -1]), "picture")
    live.do("docmanager:save")
    # Another name has a kernel of its own.
    shutil.copyfile(lab.folder / "live.ipynb", lab.folder / "saved.ipynb")
    saved = open_notebook("saved.ipynb")
    assert "'explorer' is not defined" in saved.ask("explorer")
    still_answers(saved, [1, -1])


def test_notebook_from_elsewhere_shows_a_still_until_it_is_trusted(open_notebook, lab):
    path = lab.folder / "stored.ipynb"
    write_notebook(path)
    notebook, _ = execute_notebooks.run(path, timeout=HANG)
    nbformat.write(notebook, path)
    stored = open_notebook(path.name)
    stored.page.wait_for_selector(".jp-OutputArea figure img")
    assert stored.page.locator(".vae-explorer").count() == 0
    stored.trust()
    still_answers(stored, [0, 0])


def draw_a_line(notebook):
    """Draw one stroke of five points on the sheet of the notebook's explorer."""
    sheet, mouse = notebook.explorer().locator(".vae-sheet"), notebook.page.mouse
    sheet.scroll_into_view_if_needed()
    place = sheet.bounding_box()
    mouse.move(place["x"] + 0.6 * place["width"], place["y"] + 0.2 * place["height"])
    mouse.down()
    mouse.move(place["x"] + 0.4 * place["width"], place["y"] + 0.8 * place["height"], steps=4)
    mouse.up()


def test_python_has_the_strokes_and_the_image_of_a_drawing(open_notebook, lab):
    write_notebook(lab.folder / "sheet.ipynb", SHEET)
    notebook = open_notebook("sheet.ipynb")
    notebook.do("notebook:run-all-cells")
    canvas = notebook.explorer().locator(".vae-seen canvas").first
    draw_a_line(notebook)
    until(lambda: notebook.ask("print([len(stroke) for stroke in explorer.strokes])") == "[5]", "stroke in Python")
    prepared = np.array(json.loads(notebook.ask("print(explorer.image.flatten().tolist())")))
    assert np.abs(255 - picture(canvas).numpy() - prepared).max() <= 1
    notebook.ask("explorer.strokes = []")
    until(lambda: not (255 - picture(canvas)).any(), "empty sheet")
    assert not notebook.complaints


def test_a_drawing_sets_style_and_class_in_python_too_whoever_drew_it(open_notebook, lab):
    write_notebook(lab.folder / "styles.ipynb", STYLES)
    notebook = open_notebook("styles.ipynb")
    notebook.do("notebook:run-all-cells")
    draw_a_line(notebook)
    until(lambda: notebook.ask("print([len(stroke) for stroke in explorer.strokes], is_read())") == "[5] True", "stroke and style in Python")
    first = notebook.z()
    notebook.ask("explorer.strokes = [[(0.2, 0.3), (0.8, 0.3)], [(0.3, 0.5), (0.7, 0.8)]]")
    until(lambda: notebook.z() != first and notebook.ask("print(is_read())") == "True", "other style in Python")
    assert not notebook.complaints

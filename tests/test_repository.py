"""What is written in more than one place agrees; notebooks are fit to be read."""
import ast
import configparser
import importlib.metadata
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from conftest import CHAPTERS, HANG, LESSONS, NOTEBOOKS, ROOMS, ROOT, run_process
from packaging.requirements import Requirement

import vae_tutorial

PARSER = configparser.ConfigParser(delimiters=["="])
PARSER.read(ROOT / "settings.ini", encoding="utf-8")
SETTINGS = PARSER["DEFAULT"]
REPOSITORY = f"{SETTINGS['user']}/{SETTINGS['repo']}"

# The import names of requirements that differ from the names they are installed by.
IMPORT_NAMES = {"scikit-learn": "sklearn", "ipython": "IPython", "pillow": "PIL"}
INSTALL_IN_COLAB = f'''#| hide
# In Colab: install this page's release if it is missing; Colab's own torch stays
import importlib.util
if importlib.util.find_spec("vae_tutorial") is None:
    %pip install --quiet vae-tutorial=={SETTINGS["version"]}
    print("If an import fails: choose Runtime > Restart session, then rerun the page.")'''
PYTHONS = ["3.11", "3.12", "3.13"]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def cells(path, kind=None):
    """Return the cells of a notebook with their sources as text."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell | {"source": "".join(cell["source"])} for cell in notebook["cells"] if kind in (None, cell["cell_type"])]


def requirements(entry):
    return {requirement.name: requirement for requirement in map(Requirement, SETTINGS[entry].split())}


def pinned():
    """Return the versions in constraints.txt by name."""
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


# --- one owner for what is written more than once ---

def versions_told(root):
    """Return every version that the files below `root` tell, with the file: what a reader installs, opens or imports."""
    patterns = {"settings.ini": r"^version = (.*)$", "vae_tutorial/__init__.py": r'^__version__ = "(.*)"$', "CHANGELOG.md": r"^## \[(\d.*?)\]",
                "CITATION.cff": r"^version: (.*)$"}
    pages = {str(path.relative_to(root)) for path in [*root.glob("nbs/[!._]*.ipynb"), *root.glob("nbs/*.md"), *root.glob("*.md")]}
    told = []
    for name in patterns.keys() | pages:
        text = (root / name).read_text(encoding="utf-8")
        found = re.findall(patterns[name], text, re.MULTILINE)[:1] if name in patterns else []
        found += re.findall(r"(?:colab\.research\.google\.com/github|github\.com)/[\w-]+/[\w-]+/blob/v?([^/]+)/nbs/", text)
        found += re.findall(r"vae-tutorial==([^\s\"\\]+)", text)
        told += [(name, version) for version in found]
    return told


def test_one_version_stands_everywhere():
    told = versions_told(ROOT)
    assert {version for _, version in told} == {SETTINGS["version"]}, told
    names = [name for name, _ in told]
    # settings, package, changelog, citation; a badge and an install cell in each page; a badge in the README for each chapter
    assert all(names.count(f"nbs/{path.name}") == 2 for path in LESSONS) and names.count("README.md") == len(CHAPTERS)
    assert all(names.count(name) == 1 for name in ("settings.ini", "vae_tutorial/__init__.py", "CHANGELOG.md", "CITATION.cff"))


def text_files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_set_version_changes_every_place_and_nothing_else_and_takes_releases_alone(tree_copy):
    (tree_copy / "tools").mkdir()
    for name in ("README.md", "CHANGELOG.md", "CITATION.cff", "tools/set_version.py"):
        shutil.copyfile(ROOT / name, tree_copy / name)
    script, before = tree_copy / "tools" / "set_version.py", text_files(tree_copy)
    for text in ("", "v1.0.0", "1.0", "1.0.0-rc1", "1.0.0+local"):
        done = subprocess.run([sys.executable, script, text], capture_output=True, text=True, timeout=HANG)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert f"VERSION is {text!r}, must be a release of three numbers as PEP 440 writes it, such as 0.2.0" in done.stderr
        assert text_files(tree_copy) == before
    run_process(script, "99.0.1", cwd=tree_copy.parent)
    told, after = versions_told(tree_copy), text_files(tree_copy)
    assert {version for _, version in told} == {"99.0.1"} and len(told) == len(versions_told(ROOT))
    changelog = (tree_copy / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[Unreleased\]\n\n## \[99\.0\.1\]\n", changelog, re.MULTILINE)
    assert after.keys() == before.keys()
    for name, content in after.items():
        if name.name != "CHANGELOG.md":
            assert content.replace(b"99.0.1", SETTINGS["version"].encode()) == before[name], name
    assert "everywhere already" in run_process(script, "99.0.1", cwd=tree_copy.parent)
    assert text_files(tree_copy) == after


def test_quarto_citation_and_all_addresses_are_those_of_settings():
    site, link = SETTINGS["doc_host"] + SETTINGS["doc_baseurl"], ROOT / "nbs" / "_quarto.yml"
    website, citation = yaml.safe_load(read("_quarto.yml"))["website"], yaml.safe_load(read("CITATION.cff"))
    assert (website["title"], website["repo-url"], website["site-url"]) == (SETTINGS["title"], SETTINGS["git_url"], site)
    assert link.is_symlink() and link.read_text() == read("_quarto.yml")              # nbdev reads it there
    assert (citation["repository-code"], citation["url"], citation["keywords"]) == (SETTINGS["git_url"], site, SETTINGS["keywords"].split())
    assert [author["name"] for author in citation["authors"]] == [SETTINGS["author"]]
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "_quarto.yml", ".github/ISSUE_TEMPLATE/config.yml", *NOTEBOOKS):
        assert set(re.findall(r"github(?:\.com)?/([\w-]*vae[\w-]*/[\w-]+)", read(name))) <= {REPOSITORY}, name


# --- requirements ---

def test_every_import_of_the_package_is_declared():
    declared = {IMPORT_NAMES.get(name, name) for name in requirements("requirements")}
    for path in (ROOT / "vae_tutorial").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                     else [node.module] if isinstance(node, ast.ImportFrom) and not node.level else [])
            for name in {name.split(".")[0] for name in names} - {"vae_tutorial"} - sys.stdlib_module_names:
                assert name in declared, f"{path.name} imports {name}, which settings.ini does not require"


def test_constraints_pin_all_that_is_installed_within_the_ranges_of_settings():
    versions, asked, seen = pinned(), requirements("requirements") | requirements("dev_requirements"), set()
    assert all(requirement.specifier.contains(versions[normal(name)]) for name, requirement in asked.items())
    waiting = [*asked]
    while waiting:
        name = normal(waiting.pop())
        if name not in seen:
            needed = map(Requirement, importlib.metadata.requires(name) or [])
            waiting += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
        seen.add(name)
    # PyTorch names the exact versions of its CUDA packages itself, where it is not built for the CPU.
    assert not {name for name in seen - versions.keys() if not name.startswith(("nvidia-", "cuda-", "triton"))}


def test_no_address_of_a_registry_is_locked():
    lock = json.loads(read("book/assets/package-lock.json"))
    assert "resolved" not in json.dumps(lock)
    wanted = json.loads(read("book/assets/package.json"))["dependencies"]
    assert {name: lock["packages"][f"node_modules/{name}"]["version"] for name in wanted} == wanted


# --- what people read first ---

def python_blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_python_in_the_readme_runs_and_is_that_of_the_front_page(tmp_path):
    blocks = python_blocks(read("README.md"))
    assert blocks == python_blocks("\n".join(cell["source"] for cell in cells(ROOT / "nbs" / "index.ipynb")))
    (tmp_path / "holiday").mkdir()
    for number in range(20):
        Image.effect_noise((90, 70), 60).convert("RGB").save(tmp_path / "holiday" / f"{number}.jpg")
    run_process("-c", "\n".join(blocks), cwd=tmp_path, MPLBACKEND="Agg", VAE_TUTORIAL_DATA=tmp_path / "cache")


def test_links_of_the_texts_lead_to_files():
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", read(name)):
            assert (ROOT / target).exists(), f"{name} links to {target}"


def test_pages_are_listed_wherever_pages_are_listed_under_their_titles():
    parts = {part["caption"]: [page["file"] for page in part["chapters"]] for part in yaml.safe_load(read("book/_toc.yml"))["parts"]}
    quarto = yaml.safe_load(read("_quarto.yml"))["website"]["sidebar"]["contents"]
    sections = {part["section"]: [name.removesuffix(".ipynb") for name in part["contents"]] for part in quarto if "section" in part}
    index = "\n".join(cell["source"] for cell in cells(ROOT / "nbs" / "index.ipynb"))
    for caption, letter, paths in [("Course", "", CHAPTERS), ("The engine room", "E", ROOMS)]:
        here = [(str(int(re.search(r"\d+", path.stem)[0])), cells(path)[0]["source"].partition("\n")[0].removeprefix("# "), path.stem) for path in paths]
        assert parts[caption] == sections[caption] == [stem for *_, stem in here]
        for text in (index, read("README.md").replace("](nbs/", "](")):
            assert re.findall(rf"^\| {letter}(\d+) \| \[(.*?)\]\((\w+)\.ipynb\) \|", text, re.MULTILINE) == here


# --- what it runs on, and the workflows ---

def test_readme_tells_what_it_runs_on():
    section = re.search(r"^## What it runs on\n(.*?)^## ", read("README.md"), re.MULTILINE | re.DOTALL)[1]
    rows = dict(re.findall(r"^\| ([\w-]+) \| (.*?) \|$", section, re.MULTILINE))
    assert rows.pop("Python") == ", ".join(PYTHONS)
    assert {name: text.strip("`") for name, text in rows.items()} == {
        re.match(r"[\w-]+", text)[0]: re.sub(r"^[\w-]+", "", text).replace(",", ", ") for text in SETTINGS["requirements"].split()}


def workflow(name):
    return yaml.safe_load(read(f".github/workflows/{name}.yml"))


def steps(name):
    """Yield every step of a workflow."""
    for job in workflow(name)["jobs"].values():
        yield from job["steps"]


WORKFLOWS = sorted(path.stem for path in (ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_same_pythons_everywhere():
    assert all(workflow("test")["jobs"][job]["strategy"]["matrix"]["python"] == PYTHONS for job in ("unit", "chapters"))
    accepted = re.search(r"^ *([\d.|]+)\) ;;$", read("tools/make_venv.sh"), re.MULTILINE)[1]
    assert accepted.split("|") == PYTHONS and SETTINGS["min_python"] == PYTHONS[0]
    classified = re.findall(r"Programming Language :: Python :: (3\.\d+)", read("setup.py"))
    assert classified in ([], PYTHONS)
    for step in (step for name in WORKFLOWS for step in steps(name) if "python-version" in step.get("with", {})):
        assert step["with"]["python-version"] in ("${{ matrix.python }}", PYTHONS[0])
    for name in ("README.md", "CONTRIBUTING.md"):
        assert re.search(r"Python 3\.11(, 3\.12 or| to) 3\.13", read(name))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_calls_what_is_there(name):
    text = read(f".github/workflows/{name}.yml")
    commands = [line for step in steps(name) if "run" in step for line in step["run"].splitlines()]
    commands += [command for job in workflow(name)["jobs"].values() for command in job.get("strategy", {}).get("matrix", {}).get("command", [])]
    targets = {target for command in commands for target in re.findall(r"(?<![\w-])make ((?!-)[\w-]+)", command)}
    assert targets <= set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE)), targets
    assert all((ROOT / path).exists() for path in re.findall(r"(?:bash|sh|python) ([\w./-]+/[\w.-]+)", "\n".join(commands)))
    # the version of an action is that of the other workflows; who has not said otherwise may only read
    assert all(re.fullmatch(r"[\w/-]+@(v\d+|release/v1)", step["uses"]) for step in steps(name) if "uses" in step)
    used = {tuple(step["uses"].split("@")) for name in WORKFLOWS for step in steps(name) if "uses" in step}
    assert len({action for action, _ in used}) == len(used)
    assert workflow(name)["permissions"] == {"contents": "read"}
    assert all(0 < job["timeout-minutes"] <= 360 for job in workflow(name)["jobs"].values()), text


def ignored(arguments):
    return re.findall(r"--ignore-glob=(\S+)", arguments)


def test_every_test_runs_in_a_job():
    own, jobs = workflow("test")["env"]["OWN_JOB"], workflow("test")["jobs"]
    commands = {name: job["steps"][-1]["run"] for name, job in jobs.items()}
    assert commands["unit"] == 'make test ARGS="$OWN_JOB"' and commands["deep"] == 'make test-all ARGS="-m deep $OWN_JOB"'
    named = [re.fullmatch(r'make test-all ARGS="([^"-]+)"', commands[name])[1] for name in ("lint", "chapters", "browser")]
    assert sorted(" ".join(named).split()) == sorted(ignored(own))
    assert all(list(ROOT.glob(pattern)) for pattern in ignored(own))


def test_what_runs_on_windows_imports_nothing_that_windows_lacks():
    from conftest import NOT_WINDOWS

    folder = ROOT / "tests"
    assert all(list(folder.glob(pattern)) for pattern in NOT_WINDOWS)
    for path in set(folder.glob("*.py")) - {path for pattern in NOT_WINDOWS for path in folder.glob(pattern)}:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {getattr(node, "module", "")}
            assert not names & {"fcntl", "grp", "pwd", "resource", "termios"}, f"{path.name}: import it in the function that needs it"


GH = """#!/bin/sh
# plays gh: lists the one open issue, and writes down what else it is asked for
case "$1 $2" in
"issue list") case "$*" in *"select(.title == env.TITLE).number"*) if [ "$TITLE" = "$OPEN" ]; then echo 7; fi ;; esac ;;
*) printf '%s\\n' "$@" > "asked-$2" && cp body.md "body-$2" ;;
esac
"""


@pytest.mark.parametrize("open_issue, verb, asked", [
    ("make faults fails in the weekly run", "comment", ["issue", "comment", "7", "--body-file", "body.md"]),
    ("make reproduce fails in the weekly run", "create",
     ["issue", "create", "--title", "make faults fails in the weekly run", "--body-file", "body.md"]),
])
def test_failure_of_the_weekly_run_opens_an_issue_or_adds_to_it(tmp_path, open_issue, verb, asked):
    (step,) = (step for step in workflow("reproduce")["jobs"]["report"]["steps"] if "run" in step)
    assert {"GH_TOKEN", "GH_REPO", "RUN"} == step["env"].keys()
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "logs").mkdir()
    lines = [f"line {number}" for number in range(100)]
    (tmp_path / "logs" / "make faults.log").write_text("\n".join([*lines, "x" * 10_000, "the end ```"]) + "\n")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RUN": "https://address", "OPEN": open_issue}
    subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], cwd=tmp_path, env=environment, check=True, timeout=HANG)
    assert [path.name for path in tmp_path.glob("asked-*")] == [f"asked-{verb}"]
    assert (tmp_path / f"asked-{verb}").read_text().splitlines() == asked
    body = (tmp_path / f"body-{verb}").read_text().splitlines()
    assert "https://address" in body[0] and body[-2:] == ["the end ```", "~~~"]
    assert lines[-1] in body and lines[0] not in body and max(map(len, body)) == 500


def test_help_lists_the_targets():
    phony = re.search(r"^\.PHONY: (.*)$", read("Makefile"), re.MULTILINE)[1].split()
    shown = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make ([\w-]+)", shown, re.MULTILINE) == phony


def make_venv(*arguments, path):
    """Run the script that sets up .venv with another PATH; return its exit status and what it complained of."""
    done = subprocess.run(["/bin/sh", "make_venv.sh", *arguments], cwd=path, env={"PATH": str(path / "bin")},
                          capture_output=True, text=True)
    return done.returncode, done.stderr


@pytest.mark.parametrize("answers, arguments, reason", [
    ({}, [], "no Python 3.11, 3.12 or 3.13 on the PATH"),
    ({"python3": "echo 3.10", "python3.12": "exit 127"}, [], "no Python 3.11, 3.12 or 3.13 on the PATH"),
    ({"python3": 'case "$2" in *ensurepip*) exit 1;; esac; echo 3.11'}, [], "apt-get install python3.11-venv"),
    ({"old": "echo 3.9"}, ["old"], "PYTHON=old is not a Python 3.11, 3.12 or 3.13"),
])
def test_missing_python_is_named_in_one_line(tmp_path, answers, arguments, reason):
    (tmp_path / "bin").mkdir()
    # the script goes to the folder above its own, which must not be the course's
    (tmp_path / "make_venv.sh").write_text(read("tools/make_venv.sh").replace('/.." ||', '" ||'))
    dirname = tmp_path / "bin" / "dirname"
    dirname.write_text("#!/bin/sh\necho .\n")
    dirname.chmod(0o755)
    for name, script in answers.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    status, complaint = make_venv(*arguments, path=tmp_path)
    assert status == 1 and reason in complaint and complaint.count("\n") == 1
    assert not (tmp_path / ".venv").exists()


# --- the layers ---

# Each module imports from those before it alone. The first ones are rooms, and know of no chapter.
BELOW = "checks files sources pictures devices parallel".split()
ORDER = BELOW + ("data images vae runs training saving evaluation generation latent_space autoencoder grid sweeps conv likelihoods conditional "
                 "priors uses handwriting diagnosis widgets explorers").split()


def parsed(module):
    return ast.parse(read(f"vae_tutorial/{module}.py"))


def test_modules_have_the_order_of_the_chapters():
    rooms, chapters = ([path.stem.split("_", 1)[1] for path in paths] for paths in (ROOMS, CHAPTERS))
    assert sorted(ORDER) == sorted(path.stem for path in (ROOT / "vae_tutorial").glob("[!_]*.py"))
    assert set(BELOW) < set(rooms) < set(ORDER)
    assert [module for module in ORDER if module not in rooms] == [module for module in chapters if module in ORDER and module not in rooms]


@pytest.mark.parametrize("module", ORDER)
def test_module_imports_earlier_modules_alone(module):
    earlier, found = ORDER[:ORDER.index(module)], set()
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("vae_tutorial"):
            found |= {node.module.removeprefix("vae_tutorial").removeprefix(".")}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("vae_tutorial.") for alias in node.names if alias.name.startswith("vae_tutorial.")}
        elif isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "vae_tutorial":
            found |= {node.attr} - {"__version__", "__file__"}        # of the package itself nothing else
    assert found <= set(earlier), f"{module} imports {found - set(earlier)}"


def private(names):
    return {name for name in names if name.startswith("_") and not name.endswith("__")}


def test_no_private_name_crosses_a_module():
    defined, used = {}, {}
    for module in ORDER:
        nodes = list(ast.walk(parsed(module)))
        foreign = [node for node in nodes if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") not in ("self", "cls")]
        used[module] = private(node.attr for node in foreign) | private(
            alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names)
        defined[module] = private(node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))) | private(
            node.id if isinstance(node, ast.Name) else node.attr for node in nodes if isinstance(getattr(node, "ctx", None), ast.Store)
            and isinstance(node, (ast.Name, ast.Attribute)))
    for module, other in itertools.permutations(ORDER, 2):
        crossing = (used[module] - defined[module]) & defined[other]
        assert not crossing, f"{module} uses {crossing} of {other}"


PUBLIC = {
    "training": "LR_SCHEDULES batches ConstantBeta LinearBeta CosineBeta SigmoidBeta CyclicalBeta validate Epoch History Recipe fit ShowReconstructions",
    "vae": "LIKELIHOODS reparameterize kl_divergence reconstruction_loss VAEOutput evaluating LatentModel BaseVAE VAE Elbo elbo",
    "data": "Split ImageData load_data show_images DataUnavailable expect"}


@pytest.mark.parametrize("module", PUBLIC)
def test_names_of_earlier_releases_still_come_from_their_chapter(module):
    assert set(PUBLIC[module].split()) <= set(vars(importlib.import_module(f"vae_tutorial.{module}")))


def test_names_at_the_top_of_the_package_are_said_three_times_alike():
    imported = {alias.name: node.module.removeprefix("vae_tutorial.") for node in ast.walk(parsed("__init__"))
                if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module.startswith("vae_tutorial") for alias in node.names}
    homes = {name: home for home, names in vae_tutorial._HOMES.items() for name in names.split()}
    assert imported == homes and sorted(vae_tutorial.__all__) == sorted(homes)
    for name, home in homes.items():
        assert getattr(vae_tutorial, name).__module__ == f"vae_tutorial.{home}"
    assert {"VAE", "__version__"} <= set(dir(vae_tutorial))
    with pytest.raises(AttributeError, match="module 'vae_tutorial' has no attribute 'Vae'"):
        vae_tutorial.Vae        # noqa: B018


# --- notebooks ---

@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_fit_to_be_read_and_quick_to_open(path):
    assert "widgets" not in json.loads(path.read_text(encoding="utf-8"))["metadata"], (
        "their state lies beside it: run tools/execute_notebooks.py instead of saving by hand")
    assert path.stat().st_size < 1_000_000, "a picture in it has far more pixels than a page can show"
    for number, cell in enumerate(cells(path)):
        where = f"{path.name}, cell {number}"
        assert not re.match("`(<<<<<<<|=======|>>>>>>>)", cell["source"]), f"{where} is left of a merge"
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error", where
            assert output.get("name") != "stderr", f"{where}: {output.get('text')}"
            texts = [output.get("text", ""), *(data for kind, data in output.get("data", {}).items()
                                               if not kind.startswith("image/"))]
            text = "\n".join("".join(text) if isinstance(text, list) else str(text) for text in texts)
            assert not re.search(r"(?<![\w.:/])/(home|root|tmp|Users|work|usr|opt|var)/", text), f"{where}: {text}"
            assert not re.search(r"sample: train=", text), f"{where}: an output of the sample, not of the full data"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_page_begins_as_all_do(path):
    title, *rest = cells(path)
    module = path.stem.split("_", 1)[1]
    if re.match(r"#\| default_exp", rest[0]["source"]):
        assert rest.pop(0)["source"] == f"#| default_exp {module}"
    else:
        assert path not in ROOMS and not re.search(r"^#\|\s*export", "\n".join(cell["source"] for cell in rest), re.MULTILINE)
    opening, colab = rest[:2]
    assert re.fullmatch(r"# \S.*\n+> \S.*", title["source"])
    address = f"https://colab.research.google.com/github/{REPOSITORY}/blob/v{SETTINGS['version']}/nbs/{path.name}"
    assert opening["source"].startswith(f"[![Open in Colab](images/colab-badge.svg)]({address})")
    assert "After this chapter you can" in opening["source"]
    assert ("**You can finish the course without this page.**" in opening["source"]) == (path in ROOMS)
    assert colab["source"] == INSTALL_IN_COLAB
    assert any(cell["outputs"] for cell in cells(path, "code"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_cells_are_short_and_as_wide_as_the_page_and_pictures_have_a_text(path):
    for number, cell in enumerate(cells(path, "code")):
        where, lines = f"{path.name}, code cell {number}", [line for line in cell["source"].split("\n") if not line.startswith("#|")]
        assert len(lines) <= 60, f"{where} has {len(lines)} lines"
        wide = [line for line in lines if len(line) > 88]
        assert not wide, f"{where}: {wide[0]}"
        pictures = [output for output in cell["outputs"] if "image/png" in output.get("data", {})]
        described = re.search(r"^#\|\s*fig-alt: \w", cell["source"], re.MULTILINE)
        assert bool(pictures) == bool(described), f"{where}: {cell['source'][:200]}"


def test_package_names_no_machine():
    for path in Path(ROOT / "vae_tutorial").glob("*.py"):
        assert not re.search(r"(?<!\w)/(home|root|tmp|Users|work)/", path.read_text(encoding="utf-8")), path.name

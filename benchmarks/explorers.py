"""What the latent explorers cost the reader: when the first one is drawn, what a move costs, what a page weighs.

Opens the pages of a built site that show explorers in headless Chromium, several times in turns, each time with nothing cached. The first
draw is counted from the request of the page, all of the page's own work included; a move is the script between a key press and the changed pixels.
Milliseconds of a browser say little without the machine: `loop` is the time of twenty million square roots in the same browser.

    make site && python benchmarks/explorers.py --out benchmarks/results/explorers.json
"""
import argparse
import gzip
import json
import os
import platform
import sys
import threading
from pathlib import Path
from statistics import median

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import chromium  # noqa: E402
from serve_site import make_server  # noqa: E402

WATCH = """
new MutationObserver(() => {
  if (window.firstDraw === undefined && document.querySelector(".vae-explorer")) window.firstDraw = performance.now();
}).observe(document, { childList: true, subtree: true });
"""
LOOP = """(() => {
  const start = performance.now();
  let sum = 0;
  for (let i = 0; i < 2e7; i++) sum += Math.sqrt(i);
  return performance.now() - start;
})()"""
MOVES = """plane => Array.from({ length: 60 }, (_, i) => {
  const start = performance.now();
  plane.dispatchEvent(new KeyboardEvent("keydown", { key: ["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"][i % 4] }));
  return performance.now() - start;
})"""


def visit(browser, address):
    """Milliseconds of the first draw, of moves in the page's planes, and of the loop."""
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(address)
    page.wait_for_selector(".vae-explorer", state="attached")
    page.wait_for_load_state("networkidle")
    planes = page.locator(".vae-latent [role=application]").all()
    found = page.evaluate("window.firstDraw"), [median(plane.evaluate(MOVES)) for plane in planes], page.evaluate(LOOP)
    context.close()
    return found


def measure(site, rounds):
    """Medians over the rounds, page by page."""
    names = sorted(path.stem for path in site.glob("*.html") if 'class="explorer"' in path.read_text(encoding="utf-8"))
    server = make_server(site, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.find_or_install(), args=chromium.FLAGS)
        runs = {name: [] for name in names}
        for turn in range(rounds):
            for name in names[::(-1) ** turn]:
                runs[name].append(visit(browser, f"http://127.0.0.1:{server.server_port}/{name}.html"))
    return {name: {"first draw (ms)": round(median(first for first, _, _ in visits)),
                   "moves (ms)": [round(median(times), 1) for times in zip(*(moves for _, moves, _ in visits))],
                   "loop (ms)": round(median(loop for _, _, loop in visits)),
                   "page (bytes, gzipped)": len(gzip.compress((site / f"{name}.html").read_bytes()))}
            for name, visits in runs.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html", help="folder of the built site")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="file for the figures and the machine they belong to")
    options = parser.parse_args()
    pages = measure(options.site, options.rounds)
    for name, figures in pages.items():
        print(f"{name:20s}", ", ".join(f"{what}: {value}" for what, value in figures.items()))
    if options.out:
        machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine(), "python": platform.python_version()}
        options.out.write_text(json.dumps({"machine": machine, "rounds": options.rounds, "pages": pages}, indent=1) + "\n")


if __name__ == "__main__":
    main()

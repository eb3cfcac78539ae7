"""Take the README's picture of the site: the front page of _build/html, stored as nbs/images/site.png."""
import threading
from pathlib import Path

import chromium
import serve_site
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).resolve().parents[1] / "nbs" / "images" / "site.png"


def main():
    server = serve_site.make_server(serve_site.SITE, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = chromium.find_or_install()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium.FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.wait_for_load_state("networkidle")
        page.screenshot(path=PICTURE)
    server.shutdown()


if __name__ == "__main__":
    main()

// Draw the widgets of this page from their stored state. The widget manager's own way to do it waits until everything
// else is loaded, and asks another host for what it does not find here.
(function () {
  const manager = new URL("manager", document.currentScript.src).href;
  // The modules of @jupyter-widgets are defined in libembed-amd.js; in their folder they look for their fonts.
  window.requirejs.config({
    paths: { anywidget: manager + "/anywidget", "@jupyter-widgets": manager, "@jupyter-widgets/html-manager": manager + "/libembed-amd" },
    waitSeconds: 0,      // on a slow line it takes what it takes
  });
  const load = (name) => new Promise((done, failed) => window.requirejs([name], done, failed));
  const scripts = (kind) => [...document.querySelectorAll(`script[type="application/vnd.jupyter.widget-${kind}+json"]`)];

  // The manager starts while the page is still being read: what it asks of an empty page costs little.
  const parsed = new Promise((done) => document.addEventListener("readystatechange", done, { once: true }));
  const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  async function drawAll() {
    // While it loads, the manager warns of its own schema of the state, which is of no use to a reader.
    const warn = console.warn;
    console.warn = (...words) => String(words[0]).startsWith("strict mode:") || warn.apply(console, words);
    const { HTMLManager } = await load("@jupyter-widgets/html-manager");
    await load("anywidget");        // it asks for modules that have come with the manager
    console.warn = warn;
    const widgets = new HTMLManager({ loader: load });
    for (const state of scripts("state")) await widgets.set_state(JSON.parse(state.textContent));
    await parsed;
    for (const script of scripts("view")) await Promise.race([draw(widgets, script), wait(1000)]);
  }

  async function draw(widgets, script) {
    const place = document.createElement("div");
    place.className = "widget-subarea";
    script.before(place);
    const model = await widgets.get_model(JSON.parse(script.textContent).model_id);
    await widgets.display_view(await widgets.create_view(model), place);
    await filled(place);
    script.closest(".explorer")?.classList.add("drawn");
  }

  /** A view is there before there is anything in it. */
  function filled(place) {
    return new Promise((done) => {
      const watch = new MutationObserver(() => {
        if (!place.querySelector(":scope > * > *")) return;
        watch.disconnect();
        done();
      });
      watch.observe(place, { childList: true, subtree: true });
    });
  }

  // Formulas are typeset afterwards: side by side, each would wait for the other. A widget that fails holds them up for a second.
  const drawn = Promise.race([drawAll(), wait(2000)]);
  const typeset = () => window.MathJax.startup.defaultPageReady();
  window.MathJax = { ...window.MathJax, startup: { ...window.MathJax?.startup, pageReady: () => drawn.then(typeset, typeset) } };
})();

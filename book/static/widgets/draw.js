// Draw the widgets of this page from their stored state. The widget manager's own way to do it waits until everything
// else is loaded, and asks another host for what it does not find here.
(async function () {
  const manager = new URL("manager", document.currentScript.src).href;
  // The modules of @jupyter-widgets are defined in libembed-amd.js; in their folder they look for their fonts.
  window.requirejs.config({ paths: { anywidget: manager + "/anywidget", "@jupyter-widgets": manager } });
  const load = (name) => new Promise((done, failed) => window.requirejs([name], done, failed));
  const scripts = (kind) => [...document.querySelectorAll(`script[type="application/vnd.jupyter.widget-${kind}+json"]`)];

  // While it loads, the manager warns of its own schema of the state, which is of no use to a reader.
  const warn = console.warn;
  console.warn = (...words) => String(words[0]).startsWith("strict mode:") || warn.apply(console, words);
  const [{ HTMLManager }] = await Promise.all([load("@jupyter-widgets/html-manager"), load("anywidget")]);
  console.warn = warn;
  const widgets = new HTMLManager({ loader: load });
  for (const state of scripts("state")) await widgets.set_state(JSON.parse(state.textContent));
  for (const script of scripts("view")) show(script);

  async function show(script) {
    const place = document.createElement("div");
    place.className = "widget-subarea";
    script.before(place);
    const model = await widgets.get_model(JSON.parse(script.textContent).model_id);
    await widgets.display_view(await widgets.create_view(model), place);
  }
})();

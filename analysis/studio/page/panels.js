// The panels beside the picture: numbers, tree, latents, dreams, questions.
const FEW = 6; // numbers of a site that are shown at once

const card = (title, ...children) =>
  h("section", { className: "card" }, h("h2", {}, title), ...children);

function numbers(view, doubts) {
  const p = view.log_p;
  const total = p.joint ?? p.prior;
  const title = p.joint === null && p.likelihood === null ? "log p(z)" : "log p(x, z)";
  const moved = p.joint_change ?? p.prior_change;
  if (view.edits) {
    return card("What the program says", h("p", { className: "quiet" },
      "No latents of this program say this scene: its objects have no place of their own, so the picture " +
      "was put together from the objects it found. Undo to see numbers again."));
  }
  const mood = Math.abs(moved) < LEAST ? "" : moved > 0 ? "better" : "worse";
  const row = (name, words, value, moved) => h("tr", {}, h("th", {}, name, h("small", {}, words)),
    h("td", {}, nats(value)), h("td", { className: Math.abs(moved) < LEAST ? "" : moved > 0 ? "better" : "worse" },
      change(moved)));
  const table = h("table", {},
    row("log p(z)", "would it dream this?", p.prior, p.prior_change),
    p.likelihood === null ? null
      : row("log p(x | z)", "does it fit the input?", p.likelihood, p.likelihood_change));
  return card("What the program says",
    h("div", { className: "says" },
      h("div", {},
        h("p", { className: "total" }, h("span", {}, title), h("b", { id: "log-p" }, nats(total)),
          h("em", { className: mood, id: "change", title: "since the beginning, in nats" }, change(moved)),
          h("small", {}, "nats")), table),
      view.input === null ? null : h("div", { className: "thumbs" }, thumb("input", view.input),
        thumb("difference", view.difference))),
    view.input === null ? null : bounds(doubts));
}

const thumb = (name, src) => h("figure", {}, h("img", { src, alt: name }), h("figcaption", {}, name));

function bounds(doubts) {
  if (!doubts) return h("p", { className: "quiet" }, "Drawing the posterior …");
  const khat = doubts.khat === null ? "–" : doubts.khat.toFixed(1);
  const trust = doubts.khat === null ? "" : doubts.khat < 0.7 ? "weights can be trusted" : "above 0.7: do not trust it";
  return h("p", { className: "bounds" }, h("span", {}, "ELBO ", h("b", {}, nats(doubts.elbo))),
    h("span", {}, `IWAE of ${doubts.number} draws `, h("b", {}, nats(doubts.iwae))),
    h("span", { title: trust }, "k-hat ", h("b", { className: doubts.khat < 0.7 ? "better" : "worse" }, khat)));
}

function tree(studio) {
  const { levels, selection } = studio.view;
  const list = (level, parent) => {
    const nodes = levels[level].filter((node) => level === 0 || node.parent === parent);
    const there = nodes.filter((node) => node.present).map((node) => entry(studio, node, level, list));
    const free = nodes.filter((node) => !node.present).map((node) => entry(studio, node, level, null));
    return h("ul", {}, there, free.length === 0 ? null
      : h("li", {}, h("details", { open: studio.opened.has(`${level}/${parent}`), ontoggle: (event) =>
        studio.opened[event.target.open ? "add" : "delete"](`${level}/${parent}`) },
        h("summary", {}, `${free.length} free`), h("ul", {}, free))));
  };
  const chosen = selection.slot === null;
  const root = h("button", { className: "row" + (chosen ? " chosen" : ""), onclick: () => studio.select(0, null) },
    "scene", h("small", {}, levels.length ? `${levels[0].filter((n) => n.present).length} objects` : "one latent, no objects"));
  return card("Scene graph", h("div", { className: "tree" }, root, levels.length ? list(0, 0) : null));
}

function entry(studio, node, level, list) {
  const { levels, selection } = studio.view;
  const doubt = studio.doubts?.nodes?.[level]?.[node.slot];
  const words = [];
  if (node.category !== undefined && node.present) words.push(`class ${node.category}`);
  const sure = node.present && doubt?.centre !== undefined && doubt.presence > 0.5;
  const stacked = levels[level].some((other) => other.present && other.depth !== node.depth);
  if (node.present && stacked) {
    words.push(`depth ${node.depth.toFixed(1)}` + (sure && doubt.depth >= LEAST ? ` ±${doubt.depth.toFixed(1)}` : ""));
  }
  if (sure) words.push(`±${((doubt.centre * studio.size) / 2).toFixed(1)} px`);
  if (doubt) words.push(`${Math.round(100 * doubt.presence)} %`);
  const chosen = selection.level === level && selection.slot === node.slot;
  const switched = h("input", { type: "checkbox", checked: node.present, "aria-label": "presence",
    title: "presence", onchange: async (event) => {
      const on = event.target.checked;
      await studio.select(level, node.slot);
      await studio.act({ name: "presence", on });
    } });
  const dot = h("i", {});
  dot.style.background = studio.stage.colour(level, node.slot);
  return h("li", { className: node.present ? "" : "absent" },
    h("div", { className: "node-row" }, switched,
      h("button", { className: "row" + (chosen ? " chosen" : ""), onclick: () => studio.select(level, node.slot) },
        dot, `${levelName(level, levels.length)} ${node.slot + 1}`, h("small", {}, words.join(" · ")))),
    list && level + 1 < levels.length ? list(level + 1, node.slot) : null);
}

function latentsCard(studio) {
  const { view } = studio;
  const { level, slot } = view.selection;
  const name = slot === null ? "the scene" : `${levelName(level, view.levels.length)} ${slot + 1}`;
  if (!view.sites.length) {
    const why = view.edits ? "Undo the edits to change latents." : "It has no latents of its own.";
    return card(`Latents of ${name}`, h("p", { className: "quiet" }, why));
  }
  return card(`Latents of ${name}`, ...view.sites.map((site) => siteBlock(studio, site)));
}

function siteBlock(studio, site) {
  const redraw = (source) => h("button", { className: "small", title: `draw ${site.name} anew from the ${source}`,
    disabled: source === "posterior" && studio.view.input === null,
    onclick: () => studio.act({ name: "anew", site: site.name, source }) }, source);
  const head = h("div", { className: "site" }, h("b", {}, kindOf(site.name)), h("code", {}, site.name),
    h("span", { className: "anew" }, "draw from ", redraw("prior"), redraw("posterior")));
  if (site.kind === "switch") return h("div", {}, head, site.count > 1 ? switches(studio, site) : null);
  if (site.kind === "class") return h("div", {}, head, classes(studio, site));
  const sliders = site.values.map((_, k) => slider(studio, site, k));
  if (sliders.length <= FEW) return h("div", {}, head, h("div", { className: "sliders" }, sliders));
  return h("div", {}, head, h("div", { className: "sliders" }, sliders.slice(0, FEW)),
    h("details", { open: studio.opened.has(site.name), ontoggle: (event) =>
      studio.opened[event.target.open ? "add" : "delete"](site.name) },
      h("summary", {}, `${site.count - FEW} more numbers`), h("div", { className: "sliders" }, sliders.slice(FEW))));
}

function slider(studio, site, index) {
  const [low, high] = [site.low[index], site.high[index]];
  const stroke = String(Math.random());
  return h("input", { type: "range", min: low, max: high, step: (high - low) / 200 || 0.01,
    value: site.values[index], "aria-label": `${site.name} number ${index + 1}`,
    title: `${site.name}[${index}] = ${site.values[index].toFixed(2)}`,
    onpointerdown: () => (studio.sliding = true),
    onpointerup: () => { studio.sliding = false; },
    onchange: () => { studio.sliding = false; studio.paint(); },
    oninput: (event) => studio.latest({ do: "act", name: "slide", site: site.name, index,
      value: Number(event.target.value), stroke }) });
}

function switches(studio, site) {
  return h("div", { className: "classes" }, site.count > site.values.length ? [] : site.values.map((value, index) =>
    h("button", { className: "small" + (value > 0.5 ? " on" : ""), onclick: () =>
      studio.act({ name: "slide", site: site.name, index, value: value > 0.5 ? 0 : 1 }) }, String(index + 1))));
}

function classes(studio, site) {
  return h("div", { className: "classes" }, site.values.map((value, index) =>
    h("button", { className: "small" + (value > 0.5 ? " on" : ""),
      onclick: () => studio.act({ name: "category", site: site.name, index }) }, String(index))));
}

function dreamCard(studio) {
  const { view, wanted } = studio;
  const nodes = view.levels[0] ?? [];
  const field = (label, key) => h("label", {}, label, h("input", { type: "number", min: 0, max: nodes.length,
    placeholder: "any", value: wanted[key] ?? "", "aria-label": label, onchange: (event) => {
      wanted[key] = event.target.value === "" ? null : Number(event.target.value);
    } }));
  const { level, slot } = view.selection;
  const own = slot !== null && view.placed;
  const counts = Array.from({ length: studio.classes }, (_, k) => field(`class ${k}`, k));
  return card("Dream", nodes.length ? h("div", { className: "fields" }, field("objects", "objects"), counts) : null,
    own ? h("label", { className: "hold" }, h("input", { type: "checkbox", checked: wanted.hold ?? false,
      onchange: (event) => (wanted.hold = event.target.checked) }),
      `keep ${levelName(level, view.levels.length)} ${slot + 1} as it is`) : null,
    h("div", { className: "buttons" }, h("button", { id: "dream", onclick: () => studio.dream() }, "Dream a scene"),
      h("button", { onclick: () => studio.ask({ do: "nearest" }) }, "Nearest world scene")));
}

function askCard(studio) {
  const { view } = studio;
  if (view.input === null) {
    return card("Ask", h("p", { className: "quiet" }, "A dream has no input: choose an image to ask about it."));
  }
  const others = studio.runs.filter((run) => run !== studio.run);
  return card("Ask",
    h("div", { className: "buttons" },
      h("button", { id: "refine", onclick: () => studio.refine() },
        studio.refining ? "Stop" : "Refine for 10 s"),
      others.length ? h("select", { "aria-label": "compare", onchange: (event) => studio.compare(event.target.value) },
        h("option", { value: "" }, "Compare with …"), others.map((run) => h("option", { value: run }, run))) : null),
    studio.progress ? h("p", { className: "quiet" }, studio.progress) : null,
    studio.other ? other(studio) : null);
}

function other(studio) {
  const seen = studio.other;
  const boxes = seen.levels.flatMap((nodes, level) => nodes.filter((node) => node.present).map((node) =>
    svg("polygon", { points: outline(node.pose), class: level ? "leaf" : "thin", stroke: "#ff9f1c" })));
  return h("figure", { className: "other" }, h("div", { className: "stage small" },
    h("img", { src: seen.picture, alt: `what ${seen.run} sees` }), svg("svg", { viewBox: "-1 -1 2 2" }, boxes)),
    h("figcaption", {}, h("b", {}, seen.run), h("br"), `log p(x, z) ${nats(seen.log_p.joint)} nats`, h("br"),
      `squared error ${seen.error.toFixed(4)}`));
}

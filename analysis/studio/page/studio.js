// The studio: it asks for views, and shows them.
const STEP = 0.03; // of an arrow key, in the image frame
const SIDE = 256; // pixels per side at most of a dropped picture that is sent

class Studio {
  constructor(model, element) {
    this.model = model;
    this.opened = new Set();
    this.wanted = {};
    this.waiting = null;
    this.busy = null;
    this.stage = new Stage({
      select: (level, slot) => this.select(level, slot),
      place: (pose, stroke) => this.latest({ do: "act", name: "place", pose, stroke }),
    });
    this.build(element);
    this.ask({ do: "show" }).then(() => this.thumbnails());
  }

  build(element) {
    this.header = h("header", {});
    this.note = h("p", { className: "note", role: "status" }, "Opening the run …");
    this.above = h("div", { className: "bar" });
    this.tools = h("div", { className: "bar tools" });
    this.gallery = h("div", { className: "gallery" });
    this.side = h("div", { className: "side" });
    this.helping = helpDialog();
    this.file = h("input", { type: "file", hidden: true, accept: "image/*,.json",
      onchange: (event) => this.dropped(event.target.files[0]) });
    this.root = h("div", { className: "studio", tabIndex: -1 }, this.header, this.note,
      h("main", {}, h("div", { className: "middle" }, this.above, this.stage.element, this.tools, this.gallery),
        this.side), this.helping, this.file);
    element.append(this.root);
    const keys = document.body.classList.contains("studio-page") ? document : this.root;
    keys.addEventListener("keydown", (event) => this.key(event));
    this.root.addEventListener("dragover", (event) => event.preventDefault());
    this.root.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files.length) this.dropped(event.dataTransfer.files[0]);
    });
  }

  async ask(message) {
    const before = this.busy;
    this.busyWith(1);
    const answered = (async () => {
      await before;
      try {
        return await this.model.ask(message);
      } catch {
        return { error: "The studio does not answer: is its command still running?" };
      }
    })();
    this.busy = answered;
    const answer = await answered;
    this.take(answer);
    this.busyWith(-1);
    return answer;
  }

  busyWith(more) {
    this.asked = (this.asked ?? 0) + more;
    this.root.setAttribute("aria-busy", String(this.asked > 0));
  }

  // Of messages that follow each other fast only the newest is sent.
  async latest(message) {
    if (this.waiting) {
      this.waiting.message = message;
      return;
    }
    this.waiting = { message };
    await this.busy;
    const { message: newest } = this.waiting;
    const answered = this.ask(newest);
    await answered;
    const later = this.waiting.message;
    this.waiting = null;
    if (later !== newest) this.latest(later);
  }

  act(message) {
    return this.ask({ do: "act", ...message });
  }

  take(answer) {
    if (answer.error) this.say(answer.error, true);
    else if (answer.note) this.say(answer.note);
    else if (answer.view) this.say("");
    if (answer.doubts) this.doubts = answer.doubts;
    if (answer.other) this.other = answer.other;
    if (!answer.view) {
      if (this.view) this.paint();
      return;
    }
    const fresh = !this.view || answer.view.input !== this.view.input || answer.run !== this.run;
    Object.assign(this, { view: answer.view, run: answer.run, runs: answer.runs, size: answer.size,
      chosen: answer.chosen, title: answer.title, classes: answer.classes, colours: answer.colours,
      renders: answer.renders });
    if (fresh) this.renewed();
    this.stage.level = this.view.selection.slot === null
      ? Math.min(this.stage.level, Math.max(0, this.view.levels.length - 1)) : this.view.selection.level;
    this.paint();
  }

  renewed() {
    this.doubts = this.other = this.stage.draws = this.progress = null;
    if (this.view.input !== null) queueMicrotask(() => this.doubt(this.view.input));
  }

  // Draws of the posterior come a few at a time, and what the visitor does comes between.
  async doubt(input) {
    let more = true;
    while (more && this.view.input === input) more = (await this.ask({ do: "doubts" })).doubts?.more;
  }

  say(text, wrong = false) {
    this.note.textContent = text;
    this.note.className = "note" + (wrong ? " wrong" : "");
  }

  paint() {
    if (this.showing) this.stage.draws = this.doubts?.draws ?? null;
    this.stage.show(this.view, this.colours);
    this.paintHeader();
    this.paintBars();
    [...this.gallery.children].forEach((button, k) => button.classList.toggle("chosen", k === this.chosen));
    if (this.sliding) return; // a slider under the pointer stays
    const focus = document.activeElement?.getAttribute?.("aria-label");
    this.side.replaceChildren(numbers(this.view, this.doubts),
      h("div", { className: "pair" }, tree(this), h("div", { className: "stack" }, dreamCard(this), askCard(this))),
      latentsCard(this));
    if (focus) this.side.querySelector(`[aria-label="${CSS.escape(focus)}"]`)?.focus();
  }

  paintHeader() {
    const pick = h("select", { "aria-label": "run", onchange: (event) => this.open(event.target.value) },
      this.runs.map((run) => h("option", { value: run, selected: run === this.run }, run)));
    this.header.replaceChildren(h("h1", {}, "Scene studio"), h("span", { className: "title" }, this.title),
      this.runs.length > 1 ? pick : h("code", {}, this.run),
      h("button", { title: "a picture, or a saved scene", onclick: () => this.file.click() }, "open"),
      h("button", { id: "save", title: "the scene as JSON, and its picture", onclick: () => this.save() }, "save"),
      h("button", { onclick: () => this.helping.showModal(), "aria-label": "help" }, "?"));
  }

  paintBars() {
    const { view, stage } = this;
    const tab = (label, on, click, disabled = false) =>
      h("button", { className: on ? "on" : "", disabled, onclick: click }, label);
    const look = (label, key) => tab(label, stage.shown === key, () => { stage.shown = key; this.paint(); },
      view[key] === null);
    const levels = view.levels.length > 1 ? view.levels.map((_, level) =>
      tab(`${levelName(level, view.levels.length)}s`, stage.level === level, () => this.level(level))) : [];
    this.above.replaceChildren(
      h("span", { className: "group" }, look("scene", "picture"), look("input", "input"), look("difference", "difference")),
      h("span", { className: "group" }, levels),
      h("span", { className: "group" }, tab("boxes", stage.boxes, () => { stage.boxes = !stage.boxes; this.paint(); }),
        tab("draws", Boolean(this.showing), () => this.showDraws(), !this.doubts)));
    const tool = (label, title, click, able = true) => h("button", { title, disabled: !able, onclick: click }, label);
    const chosen = view.selection.slot !== null;
    const deed = (label, title, message) => tool(label, title, () => this.act(message), chosen);
    this.tools.replaceChildren(
      h("span", { className: "group" }, tool("undo", "Ctrl Z", () => this.ask({ do: "undo" }), view.undo > 0),
        tool("redo", "Ctrl Shift Z", () => this.ask({ do: "redo" }), view.redo > 0)),
      h("span", { className: "group" }, deed("front", "f", { name: "restack", way: -1 }),
        deed("back", "b", { name: "restack", way: 1 }), deed("duplicate", "d", { name: "duplicate" }),
        deed("copy", "c", { name: "copy" }), tool("paste", "v", () => this.act({ name: "paste" }), view.copied),
        deed("delete", "Delete", { name: "remove" }), deed("redraw", "draw it anew from the prior", { name: "anew" })));
  }

  level(level) {
    this.stage.level = level;
    const first = this.view.levels[level].find((node) => node.present);
    this.select(level, first ? first.slot : null);
  }

  showDraws() {
    this.showing = !this.showing;
    this.stage.draws = null;
    this.paint();
  }

  select(level, slot) {
    return this.ask({ do: "select", level, slot });
  }

  async open(run) {
    this.say("Opening the run …");
    this.gallery.replaceChildren();
    await this.ask({ do: "show", run });
    await this.thumbnails();
  }

  async thumbnails() {
    const answer = await this.ask({ do: "gallery" });
    this.gallery.replaceChildren(...(answer.gallery ?? []).map((src, index) =>
      h("button", { className: index === this.chosen ? "chosen" : "", "aria-label": `image ${index + 1}`,
        onclick: () => this.ask({ do: "image", index }) }, h("img", { src, alt: "" }))));
  }

  dream() {
    const { wanted, view } = this;
    const classes = Object.fromEntries(Object.entries(wanted).filter(([k, n]) => /^\d+$/.test(k) && n !== null));
    const { level, slot } = view.selection;
    const held = wanted.hold && slot !== null && view.placed ? [[level, slot]] : [];
    this.say("Dreaming …");
    return this.ask({ do: "dream", objects: wanted.objects ?? null, classes, held });
  }

  async refine() {
    this.refining = !this.refining;
    for (let begin = true; this.refining; begin = false) {
      const answer = await this.ask({ do: "refine", begin });
      if (!answer.found) this.refining = false;
      else this.progress = `After ${answer.found.effort} the best scene has log p(x, z) ${nats(answer.found.log_p)}.`;
      this.paint();
    }
    this.paint();
  }

  compare(run) {
    if (!run) return null;
    this.say(`Opening ${run} …`);
    return this.ask({ do: "compare", run }).then((answer) => answer.error || this.say(""));
  }

  async save() {
    const answer = await this.ask({ do: "save" });
    if (answer.error) return;
    const text = URL.createObjectURL(new Blob([answer.json], { type: "application/json" }));
    for (const [href, ending] of [[text, "json"], [answer.png, "png"]]) {
      h("a", { href, download: `${answer.name}.${ending}` }).click();
    }
    setTimeout(() => URL.revokeObjectURL(text), 10000);
    this.say(`Saved ${answer.name}.json and ${answer.name}.png.`);
  }

  async dropped(file) {
    this.file.value = "";
    if (!file) return;
    if (file.name.endsWith(".json")) {
      await this.ask({ do: "load", json: await file.text() });
      return;
    }
    try {
      await this.ask({ do: "drop", ...(await pixelsOf(file)) });
    } catch {
      this.say(`${file.name} is no picture that this browser can read.`, true);
    }
  }

  key(event) {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) &&
      !["checkbox"].includes(event.target.type);
    if (!this.view || this.helping.open || typing || event.altKey) return;
    const deed = keyed(this, event);
    if (!deed) return;
    event.preventDefault();
    deed();
  }

  next(way) {
    const there = (this.view.levels[this.stage.level] ?? []).filter((node) => node.present);
    if (!there.length) return;
    const now = there.findIndex((node) => node.slot === this.view.selection.slot);
    this.select(this.stage.level, there[(now + way + there.length) % there.length].slot);
  }
}

// What a key does, or nothing.
function keyed(studio, event) {
  const key = event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key.toLowerCase() !== "z") return null;
    return () => studio.ask({ do: event.shiftKey ? "redo" : "undo" });
  }
  const far = event.shiftKey ? 5 * STEP : STEP;
  const move = (x, y) => () => studio.act({ name: "nudge", by: [x * far, y * far] });
  const act = (message) => () => studio.act(message);
  const pressed = event.target.tagName === "BUTTON" || event.target.tagName === "SUMMARY";
  const keys = {
    ArrowLeft: move(-1, 0), ArrowRight: move(1, 0), ArrowUp: move(0, -1), ArrowDown: move(0, 1),
    "+": act({ name: "nudge", factor: 1.1 }), "=": act({ name: "nudge", factor: 1.1 }),
    "-": act({ name: "nudge", factor: 1 / 1.1 }),
    r: act({ name: "nudge", angle: 0.1 }), R: act({ name: "nudge", angle: -0.1 }),
    f: act({ name: "restack", way: -1 }), b: act({ name: "restack", way: 1 }),
    d: act({ name: "duplicate" }), c: act({ name: "copy" }), v: act({ name: "paste" }),
    Delete: act({ name: "remove" }), Backspace: act({ name: "remove" }),
    n: () => studio.next(1), N: () => studio.next(-1), "?": () => studio.helping.showModal(),
    " ": pressed ? null : () => studio.dream(),
  };
  return keys[key] ?? null;
}

// RGB bytes of a picture in base64, at most `SIDE` pixels per side.
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, SIDE / Math.min(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((n) => Math.min(1024, Math.max(1, Math.round(n * scale))));
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  let bytes = "";
  for (let i = 0; i < data.length; i += 4) bytes += String.fromCharCode(data[i], data[i + 1], data[i + 2]);
  return { pixels: btoa(bytes), width };
}

// In a notebook messages go over the widget's channel, each answered by its number.
function overChannel(model) {
  const waiting = new Map();
  let last = 0;
  model.on("msg:custom", ({ number, answer }) => {
    waiting.get(number)?.(answer);
    waiting.delete(number);
  });
  return {
    ask: (message) => new Promise((resolve) => {
      waiting.set(++last, resolve);
      model.send({ ...message, number: last });
    }),
  };
}

export default {
  render({ model, el }) {
    new Studio(model.ask ? model : overChannel(model), el);
  },
};

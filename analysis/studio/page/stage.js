// The picture with boxes of nodes on it. Lengths are in the image frame: the side is 2, y points down.
const CORNERS = [[-1, -1], [1, -1], [1, 1], [-1, 1]];
const CLOSE = 0.012; // a shorter way of the pointer is a click

const at = (pose, [x, y]) => pose.map((row) => row[0] * x + row[1] * y + row[2]);
const outline = (pose) => CORNERS.map((corner) => at(pose, corner).join(",")).join(" ");
const centreOf = (pose) => pose.map((row) => row[2]);

function turned(pose, factor, angle) {
  const [c, s] = [factor * Math.cos(angle), factor * Math.sin(angle)];
  const [a, b] = pose;
  return [
    [c * a[0] - s * b[0], c * a[1] - s * b[1], a[2]],
    [s * a[0] + c * b[0], s * a[1] + c * b[1], b[2]],
  ];
}

// What a drag makes of a pose: the pointer went from `start` to `now` on the handle `kind`.
function dragged(kind, pose, start, now) {
  if (kind === "move") return pose.map((row, i) => [row[0], row[1], row[2] + now[i] - start[i]]);
  const centre = centreOf(pose);
  const [from, to] = [start, now].map((p) => [p[0] - centre[0], p[1] - centre[1]]);
  if (kind === "turn") {
    return turned(pose, 1, Math.atan2(to[1], to[0]) - Math.atan2(from[1], from[0]));
  }
  return turned(pose, Math.max(0.05, Math.hypot(...to) / Math.hypot(...from)), 0);
}

class Stage {
  constructor(act) {
    this.act = act; // act.select(level, slot), act.place(pose, stroke)
    this.level = 0;
    this.shown = "picture";
    this.draws = null;
    this.boxes = true;
    this.drag = null;
    this.image = h("img", { alt: "the picture that the program draws", draggable: false });
    this.overlay = svg("svg", { viewBox: "-1 -1 2 2", role: "presentation" });
    this.element = h("div", { className: "stage" }, this.image, this.overlay);
    new ResizeObserver(() => this.view && this.paint()).observe(this.element); // handles have a size in pixels
    this.overlay.addEventListener("pointerdown", (event) => this.down(event));
    this.overlay.addEventListener("pointermove", (event) => this.moved(event));
    for (const end of ["pointerup", "pointercancel"]) {
      this.overlay.addEventListener(end, () => this.up());
    }
  }

  show(view, colours) {
    Object.assign(this, { view, colours });
    this.image.src = view[this.shown] ?? view.picture;
    this.paint();
  }

  colour(level, slot) {
    let top = slot;
    for (let l = level; l > 0; l--) top = this.view.levels[l][top].parent;
    return this.colours[top % this.colours.length];
  }

  paint() {
    const { levels, selection } = this.view;
    const drawn = [];
    if (this.draws) this.draws.forEach((scene, k) => drawn.push(this.doubt(scene, k)));
    if (this.boxes) {
      levels.forEach((nodes, level) => {
        if (level !== this.level) drawn.push(...this.frames(nodes, level, levels.length));
      });
    }
    (levels[this.level] ?? []).forEach((node) => {
      if (node.present || (selection.level === this.level && selection.slot === node.slot)) {
        drawn.push(this.frame(node));
      }
    });
    if (selection.slot !== null && selection.level === this.level) drawn.push(...this.handles());
    this.overlay.replaceChildren(...drawn);
  }

  frames(nodes, level, count) {
    return nodes.filter((node) => node.present).map((node) =>
      svg("polygon", { points: outline(node.pose), class: level === count - 1 ? "leaf" : "thin",
        stroke: this.colour(level, node.slot) }));
  }

  frame(node) {
    const { selection } = this.view;
    const chosen = selection.slot === node.slot && selection.level === this.level;
    const pose = chosen && this.drag?.pose ? this.drag.pose : node.pose;
    return svg("polygon", {
      points: outline(pose), stroke: this.colour(this.level, node.slot), "data-slot": node.slot,
      class: "node" + (chosen ? " chosen" : "") + (node.present ? "" : " absent") + (this.boxes ? "" : " bare"),
    });
  }

  doubt(scene, k) {
    const nodes = (scene[this.level] ?? []).filter((node) => node.present);
    const style = `animation-delay: ${-k * 0.15}s`;
    return svg("g", { class: "doubt", style }, nodes.map((node) =>
      svg("polygon", { points: outline(node.pose), stroke: this.colour(this.level, node.slot) })));
  }

  handles() {
    const node = this.selected();
    const pose = this.drag?.pose ?? node.pose;
    const r = (this.overlay.clientWidth < 480 ? 9 : 7) / (this.overlay.clientWidth / 2 || 280);
    const made = CORNERS.map((corner) => {
      const [x, y] = at(pose, corner);
      return svg("circle", { cx: x, cy: y, r, class: "handle", "data-kind": "size" });
    });
    if (this.view.turns) {
      const height = Math.hypot(pose[0][1], pose[1][1]) || 1;
      const [x, y] = at(pose, [0, -1 - 4 * r / height]);
      const [x0, y0] = at(pose, [0, -1]);
      made.push(svg("line", { x1: x0, y1: y0, x2: x, y2: y, class: "stem" }));
      made.push(svg("circle", { cx: x, cy: y, r, class: "handle turn", "data-kind": "turn" }));
    }
    return made;
  }

  selected() {
    const { level, slot } = this.view.selection;
    return slot === null ? null : this.view.levels[level][slot];
  }

  point(event) {
    const box = this.overlay.getBoundingClientRect();
    return [(2 * (event.clientX - box.left)) / box.width - 1, (2 * (event.clientY - box.top)) / box.height - 1];
  }

  down(event) {
    const { kind, slot } = event.target.dataset;
    if (kind === undefined && slot === undefined) {
      this.act.select(this.level, null);
      return;
    }
    event.preventDefault();
    this.overlay.setPointerCapture(event.pointerId);
    const start = this.point(event);
    const number = kind ? this.view.selection.slot : Number(slot);
    const pose = this.view.levels[this.level][number].pose;
    if (!kind && this.selected() !== this.view.levels[this.level][number]) {
      this.act.select(this.level, number);
      this.view.selection = { level: this.level, slot: number };
    }
    this.drag = { kind: kind ?? "move", start, from: pose, stroke: String(Math.random()), pose: null };
  }

  moved(event) {
    if (!this.drag) return;
    const now = this.point(event);
    const way = Math.hypot(now[0] - this.drag.start[0], now[1] - this.drag.start[1]);
    if (!this.drag.pose && way < CLOSE) return;
    this.drag.pose = dragged(this.drag.kind, this.drag.from, this.drag.start, now);
    this.paint();
    this.act.place(this.drag.pose, this.drag.stroke);
  }

  up() {
    const drag = this.drag;
    this.drag = null;
    if (drag?.pose) this.act.place(drag.pose, drag.stroke);
  }
}

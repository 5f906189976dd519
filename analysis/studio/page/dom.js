// Elements, numbers in words, and the names that people know sites by.
const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !(element instanceof SVGElement) && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

const h = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

const LEAST = 0.05; // nats that are shown as a change

function nats(value) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) >= 1e29) return value < 0 ? "−∞" : "∞";
  const digits = Math.abs(value) < 100 ? 1 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits }).replace("-", "−");
}

function change(value) {
  if (value === null || value === undefined) return "";
  if (Math.abs(value) < LEAST) return "±0";
  return (value > 0 ? "+" : "") + nats(value);
}

const KINDS = {
  z_pres: "presence", z_where: "place", z_scale: "size", z_ratio: "height over width",
  z_theta: "angle", z_depth: "depth", z_what: "appearance", z_cat: "class", z_attr: "attributes",
  z_bg_mask: "segments", z_bg: "background", z_global: "the whole scene", z_mask: "mask", z_noise: "rounding",
};

function kindOf(site) {
  const stems = Object.keys(KINDS).filter((stem) => site.startsWith(stem));
  return KINDS[stems.sort((a, b) => b.length - a.length)[0]] ?? site;
}

const levelName = (level, levels) =>
  level === 0 ? "object" : level === levels - 1 ? "part" : "group";

// A view is a function of the data: it returns nodes made by h(), and draw() changes the page only where they differ from
// what it drew before. So focus, selection, scrolling and open <details> survive a redraw each second.
// Data reaches the page as text nodes and attributes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const LIVE = new Set(["checked", "value", "disabled"]); // follow the property: the user may have changed it meanwhile

/** A node: tag, attributes (`key` tells siblings apart, `ref` is called once with the element, `on…` listens), children. */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, key: props?.key, children: children.flat(Infinity).map(asNode), dom: null };
}

// What is absent keeps its place as an empty text, so that its siblings are not taken for one another.
function asNode(child) {
  if (child === null || child === undefined || child === false || child === true) return { text: "", dom: null };
  return typeof child === "object" ? child : { text: String(child), dom: null };
}

const drawn = new WeakMap();

/** Make the children of `root` what `nodes` say. */
export function draw(root, ...nodes) {
  const after = nodes.flat(Infinity).map(asNode);
  reconcile(root, drawn.get(root) ?? [], after, root.namespaceURI);
  drawn.set(root, after);
}

function reconcile(parent, before, after, namespace) {
  const keyed = new Map(before.filter((node) => node.key !== undefined).map((node) => [node.key, node]));
  const loose = before.filter((node) => node.key === undefined);
  const kept = new Set();
  const pairs = after.map((node) => {
    const old = node.key === undefined ? loose.shift() : keyed.get(node.key);
    if (!old || old.tag !== node.tag || kept.has(old)) return [null, node];
    kept.add(old);
    return [old, node];
  });
  for (const node of before) if (!kept.has(node)) node.dom.remove(); // first, so that what stays need not move
  let place = parent.firstChild;
  for (const [old, node] of pairs) {
    if (old) update(old, node, namespace);
    else create(node, namespace);
    if (node.dom === place) place = place.nextSibling;
    else parent.insertBefore(node.dom, place);
  }
}

function create(node, namespace) {
  if (node.tag === undefined) {
    node.dom = document.createTextNode(node.text);
    return;
  }
  const space = node.tag === "svg" ? SVG : namespace;
  node.dom = document.createElementNS(space, node.tag);
  setProps(node.dom, {}, node.props);
  reconcile(node.dom, [], node.children, space);
  node.props.ref?.(node.dom);
}

function update(old, node, namespace) {
  node.dom = old.dom;
  if (node.tag === undefined) {
    if (old.text !== node.text) node.dom.data = node.text;
    return;
  }
  setProps(node.dom, old.props, node.props);
  reconcile(node.dom, old.children, node.children, node.tag === "svg" ? SVG : namespace);
  if (!old.props.ref) node.props.ref?.(node.dom); // an element that was something else before
}

function setProps(dom, before, after) {
  for (const name of Object.keys(before)) if (!(name in after)) setProp(dom, name, before[name], null);
  for (const [name, value] of Object.entries(after)) setProp(dom, name, before[name], value);
}

function setProp(dom, name, before, value) {
  if (name === "key" || name === "ref") return;
  if (name === "style") setStyle(dom, before ?? {}, value ?? {});
  else if (name.startsWith("on")) dom[name] = value;
  else if (LIVE.has(name)) {
    if (dom[name] !== (value ?? "")) dom[name] = value ?? "";
  } else if (before !== value) setAttribute(dom, name, value);
}

function setAttribute(dom, name, value) {
  if (value === null || value === undefined || value === false) dom.removeAttribute(name);
  else dom.setAttribute(name, value === true ? "" : String(value));
}

// Through the style object: a strict Content-Security-Policy forbids the attribute.
function setStyle(dom, before, after) {
  for (const name of Object.keys(before)) if (!(name in after)) dom.style.removeProperty(name);
  for (const [name, value] of Object.entries(after)) if (before[name] !== value) dom.style.setProperty(name, value);
}

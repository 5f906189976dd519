// The page of help.
const KEYS = [
  ["Tab or click", "go from control to control; click a box to select it"],
  ["arrow keys", "move the node (with Shift further)"],
  ["+ and −", "enlarge and shrink it"],
  ["r and Shift R", "turn it"],
  ["f and b", "bring it to the front, send it to the back"],
  ["d, c, v", "duplicate, copy, paste (into another scene too)"],
  ["Delete", "delete it"],
  ["n and Shift N", "select the next or the previous node"],
  ["Ctrl Z, Ctrl Shift Z", "undo, do again"],
  ["Space", "dream a scene"],
  ["?", "this page"],
];

function helpDialog() {
  const dialog = h("dialog", { className: "help" },
    h("h2", {}, "A scene under the hand"),
    h("p", {}, "A probabilistic program of scenes says how a picture comes about: it draws how many objects there " +
      "are, where each is, what it looks like, and then it paints them. Its guide does the reverse: it looks at a " +
      "picture and says which scene may be behind it. The boxes are that scene."),
    h("p", {}, "Change the scene, and the program paints it anew. It also says what it thinks: log p(z) tells how " +
      "likely it would dream such a scene, log p(x | z) how well the scene explains the input. The change is " +
      "counted from the scene that was found first, in nats: 7 nats less is a thousand times less likely."),
    h("p", {}, "Draws shows the guide's doubt: each draw of its posterior is another answer to the same picture. " +
      "k-hat tests these draws: above 0.7 the guide is further from the program's own posterior than it thinks."),
    h("p", {}, "Dream draws a scene of the program's prior, without a picture. You can ask for a number of objects, " +
      "or keep one of them. Drop a picture, or a scene that you saved, anywhere on the page."),
    h("table", {}, KEYS.map(([key, words]) => h("tr", {}, h("th", {}, key), h("td", {}, words)))),
    h("form", { method: "dialog" }, h("button", { autofocus: true }, "Close")));
  return dialog;
}

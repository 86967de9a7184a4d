// What can be seen to be wrong with a page: run in it, by looking.py.
([TARGET, CONTRAST, EDGE, SMALLEST]) => {
  const faults = [], say = (what, element) => faults.push(`${what}: ${element.outerHTML.slice(0, 120)}`);
  const parts = colour => (colour.match(/[\d.]+/g) || []).map(Number);
  const light = colour => parts(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const contrast = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + .05) / (low + .05);
  };
  const clear = colour => parts(colour)[3] === 0;
  const ground = element => {
    while (element && clear(getComputedStyle(element).backgroundColor)) element = element.parentElement;
    return element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
  };
  // What is there for those alone who have the page read to them.
  const unseen = [...document.querySelectorAll("body *")].filter(e => getComputedStyle(e).clipPath === "inset(50%)");
  const aloud = element => unseen.some(one => one.contains(element));
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) say(`scrolls sideways by ${root.scrollWidth - root.clientWidth}`, root);
  if (!root.lang || !root.dir) say("has no language or direction", root);
  if (!document.title.trim()) say("has no title", root);
  for (const [query, number] of [["main", 1], ["h1", 1]])
    if (document.querySelectorAll(query).length !== number) say(`has not one ${query}`, root);
  for (const element of document.querySelectorAll("body *")) {
    if (aloud(element) || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    const own = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (own) {
      const found = contrast(style.color, ground(element));
      if (!(found >= CONTRAST)) say(`has a contrast of ${found.toFixed(2)}`, element);
      if (parseFloat(style.fontSize) < SMALLEST) say(`is written in ${style.fontSize}`, element);
      if (!box.width || !box.height) say("cannot be seen", element);
    }
    if (box.left < 0 || box.right > root.clientWidth) say("sticks out", element);
    if (element.scrollWidth > element.clientWidth + 1 && style.display !== "inline") say("is cut off", element);
  }
  for (const button of document.querySelectorAll("button, a, input, select")) {
    const box = button.getBoundingClientRect(), style = getComputedStyle(button);
    if (box.height < TARGET || box.width < TARGET) say(`is ${box.width} by ${box.height}`, button);
    if (!button.innerText.trim()) say("has no label", button);
    if (button.tabIndex < 0 || button.tabIndex > 0) say("is out of order", button);
    const shape = clear(style.backgroundColor) ? style.borderTopColor : style.backgroundColor;
    const underlined = style.textDecorationLine.includes("underline");
    if (!underlined && !(contrast(shape, ground(button.parentElement)) >= EDGE)) say("is not told from its ground", button);
  }
  for (const id of [...document.querySelectorAll("[aria-describedby]")].map(e => e.getAttribute("aria-describedby")))
    if (!document.getElementById(id)) say(`has no ${id}`, root);
  return faults;
}

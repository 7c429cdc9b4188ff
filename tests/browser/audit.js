// A few rules of the accessibility checker axe. Each function returns the faults as texts.

function faults() {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const label = (node) => node.getAttribute("aria-label");
  const text = (node) => (label(node) || node.textContent || node.title).trim();
  const short = (node) => node.outerHTML.slice(0, 80);
  const inside = (node, ...roles) => roles.every((role) => node.closest(`[role=${role}]`));
  const ids = all("[id]").map((node) => node.id);
  const led = all("[aria-controls], [aria-labelledby]")
    .map((node) => node.getAttribute("aria-controls") || node.getAttribute("aria-labelledby"));
  const labelled = "[role=grid], [role=img], [role=listbox], [role=tablist], [role=group], dialog";
  const one = ["h1", "main", "[role=tab][aria-selected=true]"];
  return [
    ...all("button, [role=tab], [role=gridcell], [role=option]").filter((node) => !text(node)).map(short),
    ...all("input, select").filter((node) => !node.closest("label") && !label(node)).map(short),
    ...all(labelled).filter((node) => !label(node)).map(short),
    ...all("canvas").filter((node) => node.getAttribute("aria-hidden") !== "true").map(short),
    ...all("[role=gridcell]").filter((node) => !inside(node, "row", "grid")).map(short),
    ...ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `id twice: ${id}`),
    ...led.filter((id) => !document.getElementById(id)).map((id) => `leads nowhere: ${id}`),
    ...one.filter((selector) => all(selector).length !== 1).map((selector) => `not one: ${selector}`),
    ...[document.documentElement.lang, document.title].filter((part) => !part).map(() => "no language or title"),
  ];
}

// Texts whose contrast with their background is below 4.5 : 1 (WCAG 2, level AA), or that are translucent.
function faint() {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const linear = (c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (node) => {
    if (!node) return [255, 255, 255];
    const colour = numbers(getComputedStyle(node).backgroundColor);
    return colour[3] === 0 ? behind(node.parentElement) : colour;
  };
  const contrast = (node) => {
    const both = [numbers(getComputedStyle(node).color), behind(node)].map(light);
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  };
  const opacity = (node) => (node ? getComputedStyle(node).opacity * opacity(node.parentElement) : 1);
  return [...document.querySelectorAll("h1, h2, p, button, label, dt, dd, b, bdi, small, .box, .words, .work")]
    .filter((node) => node.textContent.trim() && node.checkVisibility() && !node.closest(".tooltip, .flights"))
    .filter((node) => contrast(node) < 4.5 || opacity(node) < 1)
    .map((node) => `${node.textContent.slice(0, 30)} ${contrast(node).toFixed(2)}`);
}

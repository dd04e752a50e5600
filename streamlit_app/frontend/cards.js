// Shows moments as cards. Text is set as text, never as HTML, because file names and queries are untrusted.

const HOVER_MS = 250; // a pointer that only passes over a card starts no preview

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function picture(card) {
  const frame = element("div", "picture");
  const poster = element("img");
  poster.alt = "";
  poster.loading = "lazy";
  poster.decoding = "async";
  poster.onerror = () => poster.replaceWith(element("span", "missing", "no picture: the file may have moved"));
  poster.src = card.poster;
  frame.append(poster, element("span", "span", card.span));
  return frame;
}

function playOnHover(item, button, frame, source) {
  if (!source || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  let waiting, film;
  const begin = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      film = element("video");
      film.muted = film.loop = film.playsInline = true;
      film.dataset.testid = "preview";
      film.src = source;
      film.onerror = end;
      frame.insertBefore(film, frame.lastChild);
      film.play().catch(() => {});
    }, HOVER_MS);
  };
  const end = () => {
    clearTimeout(waiting);
    if (film) {
      film.removeAttribute("src");
      film.load();
      film.remove();
      film = undefined;
    }
  };
  item.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && begin());
  item.addEventListener("pointerleave", end);
  button.addEventListener("focus", () => button.matches(":focus-visible") && begin());
  button.addEventListener("blur", end);
}

function likeButton(card, findLike) {
  const like = element("button", "like", "More like this");
  like.type = "button";
  like.dataset.testid = "like";
  like.title = card.like;
  like.setAttribute("aria-label", card.like);
  like.addEventListener("click", () => findLike(card.id));
  return like;
}

function drawCard(card, chosen, choose, findLike) {
  const item = element("li");
  const button = element("button", "card");
  button.type = "button";
  button.dataset.testid = "card";
  button.dataset.id = card.id;
  button.setAttribute("aria-pressed", String(card.id === chosen));
  button.setAttribute("aria-label", card.label);
  const frame = picture(card);
  const about = element("div", "about");
  const name = element("div", "name", card.name);
  name.dir = "auto";
  name.title = card.name;
  about.append(name);
  if (card.score !== null && card.score !== undefined) {
    const score = element("div", "score");
    const track = element("div", "track");
    const fill = element("div", "fill");
    fill.style.width = `${Math.round(card.score * 100)}%`;
    track.append(fill);
    score.append(track, element("span", "", card.score.toFixed(2)));
    about.append(score);
  }
  if (card.said) {
    const said = element("div", "said", card.said);
    said.dir = "auto";
    said.title = card.said;
    about.append(said);
  }
  button.append(frame, about);
  button.addEventListener("click", () => choose(card.id));
  playOnHover(item, button, frame, card.preview);
  item.append(button);
  if (card.like) item.append(likeButton(card, findLike));
  return item;
}

export default function ({ parentElement, data, setTriggerValue }) {
  let root = parentElement.querySelector(".vtg");
  if (!root) {
    root = element("div", "vtg");
    parentElement.append(root);
  }
  const content = JSON.stringify(data.groups);
  if (root.vtgContent === content) {
    // Only the open card has changed: keep the images and previews.
    for (const button of root.querySelectorAll(".card")) {
      button.setAttribute("aria-pressed", String(button.dataset.id === data.open));
    }
    root.dataset.query = data.query;
    return;
  }
  root.vtgContent = content;
  const groups = data.groups.map((group) => {
    const section = element("section");
    if (group.title) {
      const heading = element("h3", "heading");
      const title = element("span", "", group.title);
      title.dir = "auto";
      heading.append(title, element("span", "count", ` · ${group.count}`));
      section.append(heading);
    }
    const list = element("ul", "grid");
    const choose = (id) => setTriggerValue("chosen", id);
    const findLike = (id) => setTriggerValue("liked", id);
    list.append(...group.cards.map((card) => drawCard(card, data.open, choose, findLike)));
    section.append(list);
    return section;
  });
  root.replaceChildren(...groups);
  root.dataset.testid = "cards";
  root.dataset.query = data.query;
  root.dispatchEvent(new CustomEvent("vtg-cards", { bubbles: true, composed: true, detail: data.query }));
}

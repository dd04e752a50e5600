// Shows the picture and the moment of a query; scales a chosen picture down and keeps it while this tab is open.

const SHORT_SIDE = 448; // pixels, twice what CLIP sees
const LONG_SIDE = 2048;
const QUALITY = 0.92;
const KEPT = "vtg.picture.";
const ICON = "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M9 9h.01";

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function icon() {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const path = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  for (const [name, value] of [["d", ICON], ["fill", "none"], ["stroke", "currentColor"], ["stroke-width", "2"]]) {
    path.setAttribute(name, value);
  }
  svg.append(path);
  return svg;
}

async function scaled(file) {
  const bitmap = await createImageBitmap(file);
  const { width, height } = bitmap;
  const share = Math.min(1, SHORT_SIDE / Math.min(width, height), LONG_SIDE / Math.max(width, height));
  const canvas = element("canvas");
  canvas.width = Math.max(1, Math.round(width * share));
  canvas.height = Math.max(1, Math.round(height * share));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // background of transparent pixels, which JPEG does not have
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", QUALITY).split(",")[1];
}

class SearchQuery {
  constructor(parent) {
    this.root = element("div", "vtg");
    this.row = element("div", "row");
    this.choose = element("label", "pill choose");
    this.input = element("input", "visually-hidden");
    this.input.type = "file";
    this.input.accept = "image/*";
    this.input.dataset.testid = "picture";
    this.choose.append(this.input, icon(), element("span", "", "Ask with a picture"));
    this.note = element("div", "note");
    this.note.setAttribute("role", "status");
    this.root.append(this.row);
    parent.append(this.root);
    this.input.addEventListener("change", () => {
      this.choosePicture(this.input.files[0]);
      this.input.value = "";
    });
    for (const name of ["dragenter", "dragover"]) {
      this.choose.addEventListener(name, (event) => {
        event.preventDefault();
        this.choose.classList.add("over");
      });
    }
    this.choose.addEventListener("dragleave", () => this.choose.classList.remove("over"));
    this.choose.addEventListener("drop", (event) => {
      event.preventDefault();
      this.choose.classList.remove("over");
      this.choosePicture(event.dataTransfer.files[0]);
    });
  }

  async choosePicture(file) {
    if (!file) return;
    try {
      this.sent = { name: file.name, content: await scaled(file) };
    } catch {
      this.showNote(`${file.name}: is not a picture that this browser can read; save it as JPEG or PNG`);
      return;
    }
    this.showNote("");
    this.emit("taken", { digest: "", ...this.sent });
  }

  showNote(text) {
    this.note.textContent = text;
  }

  kept(digest) {
    try {
      return JSON.parse(sessionStorage.getItem(KEPT + digest));
    } catch {
      return null;
    }
  }

  keep(digest, picture) {
    try {
      sessionStorage.setItem(KEPT + digest, JSON.stringify(picture));
    } catch {
      // Without session storage the picture has to be chosen again after a reload.
    }
  }

  update(data, emit) {
    this.emit = emit;
    if (this.session !== data.session) this.offered = undefined; // the server does not keep pictures of an earlier session
    this.session = data.session;
    const parts = [this.choose];
    if (data.picture) parts.push(this.drawPicture(data.picture));
    if (data.like) parts.push(this.draw("like", data.like.poster, `like ${data.like.label}`));
    this.row.replaceChildren(...parts, this.note);
    if (this.scrollCount !== undefined && this.scrollCount !== data.scrollCount) {
      this.root.scrollIntoView({ block: "center", behavior: "smooth" });
    }
    this.scrollCount = data.scrollCount;
  }

  drawPicture(digest) {
    let picture = this.kept(digest);
    if (!picture && this.sent) {
      picture = this.sent;
      this.keep(digest, picture);
      this.offered = digest;
    }
    this.sent = undefined;
    if (this.offered !== digest) {
      // The server keeps pictures per session, and a reload starts a new one.
      this.offered = digest;
      this.emit("taken", { digest, name: picture ? picture.name : "", content: picture ? picture.content : "" });
    }
    if (!picture) return this.draw("picture", "", "a picture that is not in this tab");
    const hint = "The picture is kept while this tab is open; the address does not hold it.";
    return this.draw("picture", `data:image/jpeg;base64,${picture.content}`, `${picture.name} · in this tab only`, hint);
  }

  draw(kind, source, label, hint = label) {
    const chip = element("span", "what");
    chip.dataset.testid = `asked-${kind}`;
    if (source) {
      const image = element("img");
      image.alt = "";
      image.onerror = () => image.remove();
      image.src = source;
      chip.append(image);
    }
    const text = element("span", "", label);
    text.dir = "auto";
    text.title = hint;
    const drop = element("button", "", "✕");
    drop.type = "button";
    drop.setAttribute("aria-label", `Remove from the query: ${label}`);
    drop.addEventListener("click", () => {
      this.showNote("");
      this.emit("dropped", kind);
    });
    chip.append(text, drop);
    return chip;
  }
}

export default function ({ parentElement, data, setTriggerValue }) {
  const known = parentElement.querySelector(".vtg");
  const inputs = known ? known.vtgQueryInputs : new SearchQuery(parentElement);
  inputs.root.vtgQueryInputs = asked;
  inputs.update(data, setTriggerValue);
}

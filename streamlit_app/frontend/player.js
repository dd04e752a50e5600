// Plays one video: opens it at a moment, seeks on request, and reports files that the browser cannot play.

const NEAR_END = 0.05; // seconds before the end of a moment at which it counts as played

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${two(minutes)}:${two(whole % 60)}`;
}

class Player {
  constructor(parent) {
    this.root = element("div", "vtg");
    const stage = element("div", "stage");
    this.video = element("video");
    this.video.controls = this.video.playsInline = true;
    this.video.preload = "auto";
    this.video.dataset.testid = "video";
    this.note = element("div", "note");
    this.note.setAttribute("role", "status");
    stage.append(this.video, this.note);
    this.strip = element("div", "strip");
    this.strip.setAttribute("role", "group");
    this.strip.setAttribute("aria-label", "Moments in this video");
    this.head = element("div", "head");
    const bar = element("div", "bar");
    this.clock = element("span", "clock");
    this.again = element("button", "pill", "Replay the moment");
    this.again.type = "button";
    this.again.addEventListener("click", () => this.show(this.data.start, true));
    this.clip = element("a", "pill strong", "Download the clip");
    this.clip.dataset.testid = "download-clip";
    bar.append(this.clock, this.again, this.clip);
    this.clip.addEventListener("click", (event) => this.fetchClip(event));
    this.root.append(stage, this.strip, bar);
    parent.append(this.root);
    this.video.addEventListener("timeupdate", () => this.follow());
    this.video.addEventListener("seeking", () => this.follow());
    this.video.addEventListener("loadedmetadata", () => this.begin());
    this.video.addEventListener("error", () => this.video.getAttribute("src") && this.refuse());
  }

  now() {
    return this.video.currentTime + this.offset;
  }

  update(data, emit) {
    const before = this.data;
    this.emit = emit;
    this.data = data;
    this.note.textContent = data.note;
    this.video.setAttribute("aria-label", data.title);
    const another = !before || before.moment !== data.moment || before.film !== data.film;
    const jumped = data.jump && (!before || !before.jump || before.jump.count !== data.jump.count);
    if (before && before.src !== data.src && !another && !jumped && !this.wanted && this.video.readyState > 0) {
      // A better copy of the same video: continue at the current time; what has not begun yet begins in the copy.
      this.wanted = { time: this.now(), play: !this.video.paused, whole: this.playingMoment };
    } else if (jumped) {
      this.wanted = { time: data.jump.to, play: true, whole: false };
    } else if (another) {
      this.wanted = { time: data.start, play: data.play, whole: data.play };
    }
    if (!before || before.src !== data.src) {
      this.offset = data.offset;
      this.video.src = data.src;
    } else if (this.wanted && this.video.readyState > 0) {
      this.begin();
    }
    if (data.clip) {
      this.clip.href = data.clip.href;
      this.clip.download = data.clip.name;
    }
    this.offer();
    this.drawMoments();
    this.follow();
    if (another && data.play) this.root.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }

  offer() {
    const playable = this.broken !== this.data.src;
    this.clip.hidden = !playable || !this.data.clip;
    this.again.hidden = !playable || !this.data.replay;
    if (!playable) this.note.textContent = "This cannot be played: the file may be damaged or gone.";
  }

  // The clip is cut on request, which may fail: then the page shows the reason, and no broken file is saved.
  async fetchClip(event) {
    if (this.cut === this.data.clip.href) return;
    event.preventDefault();
    if (this.cutting) return;
    this.cutting = true;
    const { href } = this.data.clip;
    this.note.textContent = "The clip is being cut …";
    let error = "The clip could not be downloaded: the connection was lost. Try again.";
    try {
      const answer = await fetch(href, { method: "HEAD" });
      error = answer.ok ? "" : `The clip could not be cut: ${await (await fetch(href)).text()}`;
    } catch {
      // Keep the message above.
    }
    this.cutting = false;
    this.note.textContent = error || this.data.note;
    if (error || href !== this.data.clip?.href) return;
    this.cut = href;
    this.clip.click();
    this.cut = undefined; // it may be deleted before the next download
  }

  drawMoments() {
    const { duration, moments } = this.data;
    const marks = moments.map(({ start, end, score, label }) => {
      const mark = element("button");
      mark.type = "button";
      mark.title = label;
      mark.setAttribute("aria-label", label);
      mark.style.left = `${(100 * start) / duration}%`;
      mark.style.width = `${(100 * (end - start)) / duration}%`;
      mark.style.opacity = String(0.25 + 0.75 * score);
      mark.addEventListener("click", () => this.show(start, false));
      return mark;
    });
    this.strip.replaceChildren(...marks, this.head);
    this.strip.hidden = !moments.length;
  }

  show(time, whole) {
    this.wanted = { time, play: true, whole };
    if (this.video.readyState > 0) this.begin();
  }

  begin() {
    if (this.video.videoWidth === 0) return this.refuse(); // only the audio can be decoded
    if (!this.wanted) return;
    const { time, play, whole } = this.wanted;
    this.wanted = undefined;
    this.playingMoment = whole;
    this.video.currentTime = Math.max(0, time - this.offset);
    if (play) this.video.play().catch(() => {});
  }

  follow() {
    const { start, end, duration } = this.data;
    const now = this.now();
    if (this.playingMoment && now >= end - NEAR_END) {
      this.playingMoment = false;
      if (now < end + 1) this.video.pause();
    } else if (this.playingMoment && now < start - 1) {
      this.playingMoment = false;
    }
    this.head.style.left = `${(100 * now) / duration}%`;
    this.clock.textContent = `${clock(now)} / ${clock(duration)}`;
  }

  refuse() {
    if (this.refused === this.data.src) return;
    this.refused = this.data.src;
    if (this.data.last) {
      this.broken = this.data.src;
      this.offer();
    }
    this.emit("refused", this.data.src);
  }
}

export default function ({ parentElement, data, setTriggerValue }) {
  const known = parentElement.querySelector(".vtg");
  const player = known ? known.vtgPlayer : new Player(parentElement);
  player.root.vtgPlayer = player;
  player.update(data, setTriggerValue);
}

// A box that is drawn by pointer or keyboard; 'box' is triggered with its edges in pixels of the whole picture.
let start = null;
let box = null; // shares of the width and height: left, top, right, bottom

const picker = () => element.querySelector('.picker');
const clamp = (value) => Math.min(1, Math.max(0, value));

function show() {
  const drawn = picker() && picker().querySelector('.box');
  if (!drawn) return;
  drawn.hidden = !box;
  if (!box) return;
  drawn.style.left = `${100 * box[0]}%`;
  drawn.style.top = `${100 * box[1]}%`;
  drawn.style.width = `${100 * (box[2] - box[0])}%`;
  drawn.style.height = `${100 * (box[3] - box[1])}%`;
}

function send() {
  const { width, height } = picker().dataset;
  trigger('box', { box: box && [box[0] * width, box[1] * height, box[2] * width, box[3] * height] });
}

function place(event) {
  const area = picker().getBoundingClientRect();
  return [clamp((event.clientX - area.left) / area.width), clamp((event.clientY - area.top) / area.height)];
}

element.addEventListener('pointerdown', (event) => {
  if (!picker() || !picker().contains(event.target) || event.button) return;
  start = place(event);
  box = null;
  picker().setPointerCapture(event.pointerId);
});

element.addEventListener('pointermove', (event) => {
  if (!start) return;
  const [x, y] = place(event);
  box = [Math.min(start[0], x), Math.min(start[1], y), Math.max(start[0], x), Math.max(start[1], y)];
  show();
});

element.addEventListener('pointerup', () => {
  if (!start) return;
  start = null;
  if (box && (box[2] - box[0] < 0.01 || box[3] - box[1] < 0.01)) box = null; // a click takes the box away
  show();
  send();
});

element.addEventListener('pointercancel', () => { start = null; });

let waiting = 0;
element.addEventListener('keydown', (event) => {
  if (event.target !== picker()) return;
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === 'Escape') box = null;
  else if (!step) return;
  else if (!box) box = [0.25, 0.25, 0.75, 0.75];
  else {
    const [dx, dy] = step.map((value) => 0.02 * value);
    if (event.shiftKey) box = [box[0], box[1], clamp(Math.max(box[0] + 0.02, box[2] + dx)), clamp(Math.max(box[1] + 0.02, box[3] + dy))];
    else if (box[0] + dx >= 0 && box[2] + dx <= 1 && box[1] + dy >= 0 && box[3] + dy <= 1) {
      box = [box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy];
    }
  }
  event.preventDefault();
  show();
  clearTimeout(waiting);
  waiting = setTimeout(send, 250);
});

watch('value', () => { box = null; start = null; });

// Where a pseudo-word looks, drawn over the picture.

// From unseen to seen: dark and transparent, then warm, then light. Red, green, blue, alpha.
const STOPS = [
  [0.0, [14, 14, 30, 160]],
  [0.3, [150, 34, 84, 150]],
  [0.65, [255, 104, 44, 150]],
  [1.0, [255, 220, 96, 165]],
];

// `attention`: rows of weights; `region`: left, top, width, height of what they cover, in parts of the picture.
export function drawHeat(canvas, attention, region) {
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const [left, top, across, down] = region;
  context.fillStyle = rgba(STOPS[0][1]);
  context.fillRect(0, 0, width, height);
  context.clearRect(left * width, top * height, across * width, down * height);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  const small = smallMap(attention);
  context.drawImage(small, left * width, top * height, across * width, down * height);
}

function smallMap(attention) {
  const small = document.createElement("canvas");
  small.width = attention[0].length;
  small.height = attention.length;
  const context = small.getContext("2d");
  const pixels = context.createImageData(small.width, small.height);
  const weights = attention.flat();
  const low = Math.min(...weights);
  const span = Math.max(...weights) - low || 1;
  weights.forEach((weight, place) => pixels.data.set(colour((weight - low) / span), 4 * place));
  context.putImageData(pixels, 0, 0);
  return small;
}

function colour(part) {
  const after = Math.max(1, STOPS.findIndex(([place]) => part <= place));
  const [[start, from], [end, to]] = [STOPS[after - 1], STOPS[after]];
  const way = (part - start) / (end - start);
  return from.map((value, channel) => Math.round(value + way * (to[channel] - value)));
}

function rgba([red, green, blue, alpha]) {
  return `rgba(${red}, ${green}, ${blue}, ${alpha / 255})`;
}

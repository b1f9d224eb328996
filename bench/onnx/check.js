// node check.js REFERENCE MODEL.onnx...: runs every test image of `reference` through ONNX Runtime and counts equal predictions.
// Exit status 1 if some model does not run. Largest score first; the first of equal ones, as lowbit takes it.
const fs = require('fs');
const ort = require('onnxruntime-node');

function best(scores, from, classes) {
    let at = 0;
    for (let c = 1; c < classes; c++)
        if (scores[from + c] > scores[from + at]) at = c;
    return at;
}

// The header of a reference; images are read in batches, for all of them may be gigabytes.
function open(path) {
    const file = fs.openSync(path), head = Buffer.alloc(20);
    fs.readSync(file, head, 0, 20, 0);
    const [count, c, h, w, classes] = [0, 4, 8, 12, 16].map(at => head.readInt32LE(at));
    if (!count) throw new Error(`${path}: no images`);
    return {file, count, dims: [c, h, w], size: c * h * w, classes};
}

function readBatch(ref, first, mb) {
    const [c, h, w] = ref.dims, {size, classes} = ref, record = size + 4 + 4 * classes;
    const bytes = Buffer.alloc(mb * record), images = new Float32Array(mb * size), labels = [], scores = new Int32Array(mb * classes);
    fs.readSync(ref.file, bytes, 0, bytes.length, 20 + first * record);
    for (let i = 0; i < mb; i++) {
        const at = i * record;
        for (let p = 0; p < h * w; p++)
            for (let k = 0; k < c; k++) images[i * size + k * h * w + p] = bytes[at + p * c + k];
        labels.push(bytes.readInt32LE(at + size));
        for (let k = 0; k < classes; k++) scores[i * classes + k] = bytes.readInt32LE(at + size + 4 + 4 * k);
    }
    return {images, labels, scores};
}

async function check(path, ref) {
    const session = await ort.InferenceSession.create(path, {intraOpNumThreads: 1, logSeverityLevel: 3});
    const most = Math.max(1, Math.min(250, Math.floor(3e6 / ref.size)));
    let equal = 0, right = 0, exact = 0, sum = 0, largest = 0;
    for (let first = 0; first < ref.count; first += most) {
        const mb = Math.min(most, ref.count - first), {images, labels, scores} = readBatch(ref, first, mb);
        const image = new ort.Tensor('float32', images, [mb, ...ref.dims]);
        const logits = (await session.run({image})).logits.data;
        for (let i = 0; i < mb; i++) {
            const at = i * ref.classes, got = best(logits, at, ref.classes);
            equal += got === best(scores, at, ref.classes);
            right += got === labels[i];
            let worst = 0;
            for (let k = 0; k < ref.classes; k++) worst = Math.max(worst, Math.abs(logits[at + k] - scores[at + k] / 65536));
            exact += worst < 1e-3;
            sum += worst;
            largest = Math.max(largest, worst);
        }
    }
    console.log(`${path}: ${equal} of ${ref.count} predictions equal, top-1 ${(100 * right / ref.count).toFixed(2)} %, ` +
        `scores within 0.001 on ${exact} images, largest difference of a score ${largest.toPrecision(3)} ` +
        `(mean ${(sum / ref.count).toPrecision(3)})`);
}

(async () => {
    const ref = open(process.argv[2]);
    for (const path of process.argv.slice(3).filter(Boolean)) {
        try {
            await check(path, ref);
        } catch (error) {
            console.log(`${path}: ONNX Runtime does not run it: ${error.message.split('\n')[0]}`);
            process.exitCode = 1;
        }
    }
})();

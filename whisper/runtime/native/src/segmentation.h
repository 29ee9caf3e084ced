// The segmentation network in integers: which local speakers speak in each frame of some windows.
//
// The filters and the convolutions are products of 16-bit numbers: each channel has a wide range, so
// that nothing is cut off. What the LSTM reads are bytes, as what it writes is between -1 and 1. Its
// input and its state are multiplied by one matrix, for all windows of a task at once: so a step is
// a small product and not a vector's, and its weights stay in the second cache. A result depends on its
// window alone, neither on the others nor on the number of threads.
//
// Only for processors with VNNI: elsewhere PyTorch is as fast.
#pragma once

#include "byte_products.h"

namespace sotto {

#if defined(__AVX512VNNI__)

constexpr int kPool = 3;

inline FloatVec leaky(FloatVec x) { return maximum(x, x * 0.01f); }
inline FloatVec bounded(FloatVec x, float most) {
    const FloatVec low = maximum(x, broadcast(-most));
    return low < most ? low : broadcast(most);
}

// Round to 16 bits with sign.
inline void store_words(int16_t* to, FloatVec x) {
    const __m256i words = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(__m512(x)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), words);
}

// R rows of 16-bit numbers, `stride` apart, times V vectors of columns, into `sums` (R, V * 16). Not
// inlined, and sums of the vector type: otherwise GCC copies each of them at each step.
template <int V, int R>
__attribute__((noinline)) void multiply_words(
    const int16_t* x, int stride, int pairs, const int16_t* weight, int32_t* sums) {
    IntVec acc[R][V] = {};
    for (int g = 0; g < pairs; g++, weight += V * 2 * kLanes) {
        IntVec b[V];
        for (int v = 0; v < V; v++) b[v] = *reinterpret_cast<const IntVec*>(weight + v * 2 * kLanes);
#pragma GCC unroll 6
        for (int i = 0; i < R; i++) {
            int32_t two;
            std::memcpy(&two, x + i * stride + 2 * g, 4);
            const __m512i a = _mm512_set1_epi32(two);
            for (int v = 0; v < V; v++)
                acc[i][v] = IntVec(_mm512_dpwssd_epi32(__m512i(acc[i][v]), a, __m512i(b[v])));
        }
    }
    for (int i = 0; i < R; i++)
        for (int v = 0; v < V; v++) *reinterpret_cast<IntVec*>(sums + (i * V + v) * kLanes) = acc[i][v];
}

// Rows of 16-bit numbers times V vectors of columns; of each three rows the highest
// sum, or its magnitude, times `scale` (V * 16,) and `factor`, becomes a row of `out` (n, V * 16).
// P of these are made at once; the last ones, which may be made twice, are the same both times.
template <int V, int P, bool kMagnitude>
void pooled_products(const int16_t* x, int stride, int pairs, int n, const int16_t* weight, const float* scale,
                     float factor, float* out) {
    constexpr int rows = kPool * P;
    alignas(64) int32_t sums[rows][V * kLanes];
    for (int row = 0; row < n; row += P) {
        const int first = std::min(row, n - P);
        multiply_words<V, rows>(x + size_t(first) * kPool * stride, stride, pairs, weight, sums[0]);
        for (int p = 0; p < P; p++)
            for (int c = 0; c < V * kLanes; c += kLanes) {
                __m512i highest = _mm512_set1_epi32(INT32_MIN);
                for (int i = 0; i < kPool; i++) {
                    const __m512i sum = _mm512_load_si512(sums[kPool * p + i] + c);
                    highest = _mm512_max_epi32(highest, kMagnitude ? _mm512_abs_epi32(sum) : sum);
                }
                const FloatVec y = FloatVec(_mm512_cvtepi32_ps(highest));
                store(out + size_t(first + p) * V * kLanes + c, y * load(scale + c) * factor);
            }
    }
}

struct Segmentation {
    static constexpr int kTaps = 252, kHop = 10, kFilters = 80, kChannels = 64, kWidth = 5;
    static constexpr int kUnits = 128, kOutputs = 2 * kUnits, kLayers = 4, kClasses = 7, kMostWindows = 8;
    static constexpr float kEpsilon = 1e-5f;

    const float* sound_norm;  // (2,) gain and offset
    struct Convolution {
        const int16_t* weight;          // (k / 2, columns, 2)
        const float *scale;             // (columns,)
        const float *gain, *offset, *low;  // (columns,) of the norm behind it, in steps of what is stored
    } convolutions[3];
    ByteLayer recurrent[kLayers][2];  // (16, k / 4, 32, 4): see `step`
    ByteLayer first;                  // (128, 256)
    const float *second, *second_bias, *last, *last_bias;  // (128, 128), (128,), (128, 16), (16,)

    // Take the arrays in this order; see packed_segmentation.py.
    explicit Segmentation(const void* const* arrays) {
        auto floats = [&] { return static_cast<const float*>(*arrays++); };
        auto layer = [&] {
            const auto* weight = static_cast<const int8_t*>(*arrays++);
            const float* scale = floats();
            return ByteLayer{weight, scale, floats()};
        };
        sound_norm = floats();
        for (Convolution& c : convolutions) {
            c.weight = static_cast<const int16_t*>(*arrays++);
            c.scale = floats(), c.gain = floats(), c.offset = floats(), c.low = floats();
        }
        for (auto& directions : recurrent)
            for (ByteLayer& direction : directions) direction = layer();
        first = layer();
        second = floats(), second_bias = floats(), last = floats(), last_bias = floats();
    }

    // How many values each layer before the LSTM gives, as many as PyTorch's.
    static int n_filtered(int n_samples) { return ((n_samples - (kTaps - 1)) / kHop + 1) / kPool; }
    static int n_convolved(int n) { return (n - kWidth + 1) / kPool; }
    static int n_frames(int n_samples) { return n_convolved(n_convolved(n_filtered(n_samples))); }

    // Windows of `sound`, `n_samples` each, to the likeliest class of each frame, (n, n_frames).
    void classes(const float* sound, const int64_t* starts, int n, int n_samples, uint8_t* out, int n_threads) const {
        const int frames = n_frames(n_samples);
        const size_t size = size_t(frames) * kOutputs;  // bytes of a window
        Buffer<uint8_t> features(n * size_t(frames) * kChannels), outputs[2];
        for (auto& y : outputs) y.reserve(n * size);
        const int at_once = std::clamp((2 * n + n_threads - 1) / n_threads, 1, std::min(n, kMostWindows));
        const int n_groups = (n + at_once - 1) / at_once;
        std::vector<Workspace> workspaces(n_threads);
        for (Workspace& w : workspaces) w.reserve(n_samples, frames);
        parallel_region(n_threads, 2 + kLayers, [&](Worker& worker, int thread) {
            Workspace& w = workspaces[thread];
            worker.parallel_for(n, [&](int i) {
                convolve(w, sound + starts[i], n_samples, features + size_t(i) * frames * kChannels);
            });
            for (int l = 0; l < kLayers; l++)
                worker.parallel_for(2 * n_groups, [&](int task) {
                    const int begin = task / 2 * at_once, count = std::min(at_once, n - begin);
                    const int width = l ? kOutputs : kChannels;
                    const uint8_t* x = l ? outputs[1 - l % 2] : features;
                    remember(w, recurrent[l][task % 2], x + size_t(begin) * frames * width, width, count, frames,
                             task % 2, outputs[l % 2] + begin * size);
                });
            worker.parallel_for(n, [&](int i) {
                classify(w, outputs[1 - kLayers % 2] + i * size, frames, out + size_t(i) * frames);
            });
        });
    }

  private:
    // Of one thread.
    struct Workspace {
        Buffer<int16_t> words;
        Buffer<float> sums, cells;
        void reserve(int n_samples, int frames) {
            const size_t filtered = size_t(n_filtered(n_samples)) * kFilters;
            words.reserve(std::max<size_t>(n_samples + 2, filtered));
            sums.reserve(std::max(filtered, size_t(frames) * kUnits));
            cells.reserve(kMostWindows * kUnits);
        }
    };

    // The layers before the LSTM; `out` (frames, 64) are bytes.
    void convolve(Workspace& w, const float* sound, int n_samples, uint8_t* out) const {
        const float step = normalize_sound(sound, n_samples, w.words);
        const Convolution &a = convolutions[0], &b = convolutions[1], &c = convolutions[2];
        int n = n_filtered(n_samples);
        pooled_products<5, 1, true>(w.words, kHop, kTaps / 2, n, a.weight, a.scale, step, w.sums);
        normalize(w.sums, n, kFilters, a, [&](size_t i, FloatVec y) { store_words(w.words + i, y); });
        n = n_convolved(n);
        pooled_products<4, 2, false>(w.words, kFilters, kWidth * kFilters / 2, n, b.weight, b.scale, 1, w.sums);
        normalize(w.sums, n, kChannels, b, [&](size_t i, FloatVec y) { store_words(w.words + i, y); });
        n = n_convolved(n);
        pooled_products<4, 2, false>(w.words, kChannels, kWidth * kChannels / 2, n, c.weight, c.scale, 1, w.sums);
        normalize(w.sums, n, kChannels, c, [&](size_t i, FloatVec y) { store_bytes(out + i, y); });
    }

    // The sound of a window with one mean and variance, as 16-bit numbers of which the largest is
    // the largest there is; returns what one of them stands for.
    float normalize_sound(const float* sound, int n, int16_t* words) const {
        double total = 0, squares = 0;
        for (int i = 0; i < n; i++) total += sound[i];
        const float mean = float(total / n);
        float highest = 0;
        for (int i = 0; i < n; i++) {
            const float d = sound[i] - mean;
            squares += double(d) * d, highest = std::max(highest, std::fabs(d));
        }
        const float gain = sound_norm[0] / std::sqrt(float(squares / n) + kEpsilon);
        highest = std::max(highest * std::fabs(gain) + std::fabs(sound_norm[1]), 1e-9f);
        const float step = highest / 32767;
        const float scale = gain / step, offset = sound_norm[1] / step;
        for (int i = 0; i < n; i++) words[i] = int16_t(std::lrintf((sound[i] - mean) * scale + offset));
        words[n] = words[n + 1] = 0;  // read with a weight of zero
        return step;
    }

    // Give each channel of `x` (n, columns) the same mean and variance, then the rectifier.
    template <class Out>
    static void normalize(const float* x, int n, int columns, const Convolution& layer, const Out& out) {
        FloatVec total[kFilters / kLanes] = {}, squares[kFilters / kLanes] = {};
        const int vectors = columns / kLanes;
        for (int t = 0; t < n; t++)
            for (int v = 0; v < vectors; v++) total[v] += load(x + size_t(t) * columns + v * kLanes);
        for (int v = 0; v < vectors; v++) total[v] /= float(n);
        for (int t = 0; t < n; t++)
            for (int v = 0; v < vectors; v++) {
                const FloatVec d = load(x + size_t(t) * columns + v * kLanes) - total[v];
                squares[v] += d * d;
            }
        FloatVec scale[kFilters / kLanes], shift[kFilters / kLanes];
        for (int v = 0; v < vectors; v++) {
            const FloatVec deviation = FloatVec(_mm512_sqrt_ps(__m512(squares[v] / float(n) + kEpsilon)));
            scale[v] = load(layer.gain + v * kLanes) / deviation;
            shift[v] = load(layer.offset + v * kLanes) - total[v] * scale[v];
        }
        for (int t = 0; t < n; t++)
            for (int v = 0; v < vectors; v++) {
                const size_t i = size_t(t) * columns + v * kLanes;
                out(i, leaky(load(x + i) * scale[v] + shift[v]) - load(layer.low + v * kLanes));
            }
    }

    // One direction of a layer of the LSTM, over some windows: `x` (count, frames, width) to its half
    // of `out` (count, frames, 256).
    static void remember(Workspace& w, const ByteLayer& layer, const uint8_t* x, int width, int count, int frames,
                         int direction, uint8_t* out) {
        uint8_t nothing[kUnits];  // the state before the first step
        std::fill_n(nothing, kUnits, uint8_t(128));
        std::fill_n(static_cast<float*>(w.cells), size_t(count) * kUnits, 0.0f);
        ByteRows left[2] = {{x, size_t(frames) * width, width / 4}, {nothing, 0, kUnits / 4}};
        for (int i = 0; i < frames; i++) {
            const int t = direction ? frames - 1 - i : i;
            uint8_t* to = out + size_t(t) * kOutputs + direction * kUnits;
            left[0].data = x + size_t(t) * width;
            step(left, count, layer, w.cells, to, size_t(frames) * kOutputs);
            left[1] = {to, size_t(frames) * kOutputs, kUnits / 4};
        }
    }

    // One step. Of each 16 units the weight has the columns of two gates in one panel and those of
    // the other two in the next: input and forget, new and output.
    static void step(const ByteRows* left, int count, const ByteLayer& layer, float* cells, uint8_t* to, size_t stride) {
        const size_t panel = size_t(left[0].groups + left[1].groups) * 4 * kColumns;
        alignas(64) int32_t sums[2][kMostRows * kColumns];
        const int8_t* weight = layer.weight;
        for (int unit = 0; unit < kUnits; unit += kLanes) {
            for (auto& some : sums) {
                kByteKernels[count - 1](left, 2, 0, weight, some);
                weight += panel;
            }
            for (int i = 0; i < count; i++) {
                FloatVec gate[4];
                for (int k = 0; k < 4; k++) {
                    const IntVec whole = *reinterpret_cast<const IntVec*>(sums[k / 2] + i * kColumns + k % 2 * kLanes);
                    const int column = 4 * unit + k * kLanes;
                    gate[k] = __builtin_convertvector(whole, FloatVec) * load(layer.scale + column) +
                              load(layer.shift + column);
                }
                float* cell = cells + i * kUnits + unit;
                store_bytes(to + i * stride + unit, unit_of(gate, cell) * 127.0f + 128.0f);
            }
        }
    }

    // What 16 units say: sigmoids and hyperbolic tangents as fractions of powers, with one division
    // for the cell and one for the output.
    static FloatVec unit_of(const FloatVec* gate, float* cell) {
        const FloatVec i = exp(-bounded(gate[0], 20)), f = exp(-bounded(gate[1], 20));
        const FloatVec g = exp(bounded(gate[2], 10) * -2.0f), o = exp(-bounded(gate[3], 20));
        const FloatVec new_part = (1.0f + i) * (1.0f + g);
        const FloatVec c = (load(cell) * new_part + (1.0f - g) * (1.0f + f)) / (new_part * (1.0f + f));
        store(cell, c);
        const FloatVec e = exp(bounded(c, 10) * -2.0f);
        return (1.0f - e) / ((1.0f + o) * (1.0f + e));
    }

    // The layers behind the LSTM, for one window.
    void classify(Workspace& w, const uint8_t* x, int frames, uint8_t* out) const {
        const ByteRows left{x, kOutputs, kOutputs / 4};
        multiply(&left, 1, frames, first.weight, kUnits, [&](int t, int c, FloatVec sums) {
            store(w.sums + size_t(t) * kUnits + c, leaky(sums * load(first.scale + c) + load(first.shift + c)));
        });
        for (int t = 0; t < frames; t++) {
            float hidden[kUnits], scores[kLanes];
            matrix<kUnits>(second, second_bias, w.sums + size_t(t) * kUnits, kUnits, hidden);
            for (int c = 0; c < kUnits; c += kLanes) store(hidden + c, leaky(load(hidden + c)));
            matrix<kLanes>(last, last_bias, hidden, kUnits, scores);
            out[t] = uint8_t(std::max_element(scores, scores + kClasses) - scores);
        }
    }
};

#endif

}  // namespace sotto

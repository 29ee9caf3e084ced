// The voice encoder CAM++ in int8: what a piece of a voice is like, from its log mel power.
//
// Every activation is a byte without sign, with a fixed scale for each channel that Python has taken
// from the batch norms, and a weight is a byte with sign; so a product needs no correction, and its
// sums become the next layer's bytes by one multiplication and one addition: all scales, zero points
// and biases are folded into these two. Pieces are computed one by one, each by one thread in its own
// cache; a result depends on its piece alone, and not on the number of threads.
//
// Only for processors with VNNI: elsewhere PyTorch is as fast.
#pragma once

#include "byte_products.h"

namespace sotto {

#if defined(__AVX512VNNI__)

// One layer of a block: a clamp, 1x1, three taps, and a gate by what the whole piece is like.
struct GatedLayer {
    const uint8_t *low, *high;                   // (size,) see VoiceEncoder::clamp
    ByteLayer into, taps;                        // (128, size), (32, 3 * 128)
    const float* mean_scale;                     // (128,)
    const float *squeeze, *squeeze_bias;         // (128, 64), (64,)
    const float *excite, *excite_bias;           // (64, 32), (32,)
};

struct VoiceBlock {
    int n_layers, dilation, size;  // size: channels that come in
    std::vector<GatedLayer> layers;
    const uint8_t *low, *high;
    ByteLayer out;
    int n_out;
    int full() const { return size + 32 * n_layers; }
};

struct VoiceEncoder {
    static constexpr int kMels = 80, kChannels = 32, kHidden = 128, kWidth = 1024, kOut = 512;
    const float *first, *first_bias;  // (9, 32): time, frequency
    struct Residual {
        ByteLayer one, two;
        const float* kept;  // (32,) null where the shortcut is in `two`
    } residual[4];
    ByteLayer last, into;
    const float* into_low;  // (128,) the byte that stands for 0
    std::vector<VoiceBlock> blocks;

    // Take the arrays in this order; see packed_encoder.py.
    explicit VoiceEncoder(const void* const* arrays) {
        auto floats = [&] { return static_cast<const float*>(*arrays++); };
        auto bytes = [&] { return static_cast<const uint8_t*>(*arrays++); };
        auto layer = [&] {
            const auto* weight = static_cast<const int8_t*>(*arrays++);
            const float* scale = floats();
            return ByteLayer{weight, scale, floats()};
        };
        first = floats(), first_bias = floats();
        for (int i = 0; i < 4; i++) {
            residual[i].one = layer(), residual[i].two = layer();
            residual[i].kept = i % 2 ? floats() : nullptr;
        }
        last = layer(), into = layer(), into_low = floats();
        const int sizes[3][4] = {{12, 1, 128, 256}, {24, 2, 256, 512}, {16, 2, 512, kOut}};
        for (const auto& s : sizes) {
            VoiceBlock block{s[0], s[1], s[2], {}, nullptr, nullptr, {}, s[3]};
            for (int i = 0; i < block.n_layers; i++) {
                GatedLayer g;
                g.low = bytes(), g.high = bytes(), g.into = layer(), g.taps = layer();
                g.mean_scale = floats(), g.squeeze = floats(), g.squeeze_bias = floats();
                g.excite = floats(), g.excite_bias = floats();
                block.layers.push_back(g);
            }
            block.low = bytes(), block.high = bytes(), block.out = layer();
            blocks.push_back(block);
        }
    }

    // Pieces `mel` of frames (starts[i] to starts[i + 1], 80), an even number of frames each, to the
    // mean and the standard deviation of what the last layer says of each, (n, 1024).
    void embed(const float* mel, const int32_t* starts, int n, float* out, int n_threads) const {
        std::vector<Workspace> workspaces(n_threads);
        parallel_region(n_threads, 1, [&](Worker& worker, int thread) {
            Workspace& w = workspaces[thread];
            worker.parallel_for(n, [&](int i) {
                const int frames = starts[i + 1] - starts[i];
                w.reserve(frames);
                head(w, mel + size_t(starts[i]) * kMels, frames);
                rest(w, frames / 2, out + size_t(i) * 2 * kOut);
            });
        });
    }

  private:
    // Of one thread. Images are (frames + 2, frequencies + 2, 32) with a border of zeros.
    struct Workspace {
        Buffer<float> mel, statistics;
        Buffer<uint8_t> images[3], all, clamped, hidden;
        void reserve(int frames) {
            mel.reserve(size_t(frames + 2) * (kMels + 2));
            for (auto& image : images) image.reserve(size_t(frames + 4) * (kMels + 2) * kChannels);
            const size_t half = frames / 2;
            all.reserve(half * kWidth), clamped.reserve(half * kWidth);
            hidden.reserve((half + 4) * kHidden), statistics.reserve(half * kOut);
        }
    };
    struct Image {
        uint8_t* data;
        int width;  // frequencies
        size_t pitch() const { return size_t(width + 2) * kChannels; }
        uint8_t* at(int frame, int frequency) const {  // -1 is the border
            return data + (frame + 1) * pitch() + size_t(frequency + 1) * kChannels;
        }
        void clear_border(int frames) const {
            std::memset(at(-1, -1), 0, pitch()), std::memset(at(frames, -1), 0, pitch());
            for (int t = 0; t < frames; t++)
                std::memset(at(t, -1), 0, kChannels), std::memset(at(t, width), 0, kChannels);
        }
    };

    // The two-dimensional layers; their result, (frames + 4, 10, 32), comes into images[1].
    void head(Workspace& w, const float* mel, int frames) const {
        Image x{w.images[0], kMels}, y{w.images[1], kMels}, z{w.images[2], kMels};
        convolve_mel(w, mel, frames, x);
        for (int i = 0; i < 4; i++) {
            const int step = i % 2 ? 1 : 2;
            y.width = z.width = x.width / step;
            convolve(x, frames, step, residual[i].one, y, nullptr, nullptr);
            convolve(y, frames, 1, residual[i].two, z, &x, residual[i].kept);
            std::swap(x, z);
        }
        convolve_last(x, frames, w.images[1]);
    }

    // One channel, in float32.
    void convolve_mel(Workspace& w, const float* mel, int frames, const Image& to) const {
        constexpr int pitch = kMels + 2;
        std::memset(w.mel, 0, size_t(frames + 2) * pitch * 4);
        for (int t = 0; t < frames; t++)
            std::memcpy(w.mel + (t + 1) * pitch + 1, mel + size_t(t) * kMels, kMels * 4);
        for (int t = 0; t < frames; t++)
            for (int f = 0; f < kMels; f++)
                for (int c = 0; c < kChannels; c += kLanes) {
                    FloatVec sum = load(first_bias + c);
                    for (int tap = 0; tap < 9; tap++)
                        sum += load(first + tap * kChannels + c) * w.mel[(t + tap / 3) * pitch + f + tap % 3];
                    store_bytes(to.at(t, f) + c, sum);
                }
        to.clear_border(frames);
    }

    // Three by three, every `step`th frequency. `beside` is added: as it is, times `kept`, or by
    // further columns of the weight, with twice as many frequencies.
    static void convolve(const Image& from, int frames, int step, const ByteLayer& layer, const Image& to,
                         const Image* beside, const float* kept) {
        const int taps = 3 * kChannels / 4;
        for (int t = 0; t < frames; t++) {
            ByteRows left[4];
            for (int i = 0; i < 3; i++) left[i] = {from.at(t + i - 1, -1), size_t(step) * kChannels, taps};
            const bool widens = beside && !kept;
            if (widens) left[3] = {beside->at(t, 0), 2 * kChannels, kChannels / 4};
            multiply(left, widens ? 4 : 3, to.width, layer.weight, kChannels, [&](int f, int c, FloatVec sums) {
                FloatVec y = sums * load(layer.scale + c) + load(layer.shift + c);
                if (kept) y += load_bytes(beside->at(t, f) + c) * load(kept + c);
                store_bytes(to.at(t, f) + c, y);
            });
        }
        to.clear_border(frames);
    }

    // The last of them: no border but two frames of zeros before and behind, for the layer that reads five.
    void convolve_last(const Image& from, int frames, uint8_t* to) const {
        const int width = from.width / 2, row = width * kChannels;
        std::memset(to, 0, 2 * row), std::memset(to + size_t(frames + 2) * row, 0, 2 * row);
        for (int t = 0; t < frames; t++) {
            ByteRows left[3];
            for (int i = 0; i < 3; i++) left[i] = {from.at(t + i - 1, -1), 2 * kChannels, 3 * kChannels / 4};
            uint8_t* own = to + size_t(t + 2) * row;
            multiply(left, 3, width, last.weight, kChannels, [&](int f, int c, FloatVec sums) {
                store_bytes(own + f * kChannels + c, sums * load(last.scale + c) + load(last.shift + c));
            });
        }
    }

    // The layers over time, at half the rate.
    void rest(Workspace& w, int n, float* out) const {
        const ByteRows five{w.images[1], 2 * 320, 1600 / 4};
        uint8_t* all = w.all;
        multiply(&five, 1, n, into.weight, kHidden, [&](int t, int c, FloatVec sums) {
            const FloatVec y = sums * load(into.scale + c) + load(into.shift + c);
            store_bytes(all + size_t(t) * kWidth + c, maximum(y, load(into_low + c)));
        });
        for (const VoiceBlock& block : blocks) {
            for (int i = 0; i < block.n_layers; i++) gated(w, block, i, n);
            clamp(w, block.low, block.high, block.full(), n);
            const ByteRows left{w.clamped, size_t(block.full()), block.full() / 4};
            const bool is_last = &block == &blocks.back();
            multiply(&left, 1, n, block.out.weight, block.n_out, [&](int t, int c, FloatVec sums) {
                const FloatVec y = sums * load(block.out.scale + c) + load(block.out.shift + c);
                if (is_last)
                    store(w.statistics + size_t(t) * kOut + c, maximum(y, FloatVec{}));
                else
                    store_bytes(all + size_t(t) * kWidth + c, y);
            });
        }
        summarize(w.statistics, n, out);
    }

    // A batch norm and a rectifier before a layer are a clamp of its bytes; the rest is in the layer.
    static void clamp(Workspace& w, const uint8_t* low, const uint8_t* high, int size, int n) {
        for (int t = 0; t < n; t++)
            for (int c = 0; c < size; c += 32) {
                Bytes32 x = *reinterpret_cast<const Bytes32*>(w.all + size_t(t) * kWidth + c);
                const Bytes32 a = *reinterpret_cast<const Bytes32*>(low + c);
                const Bytes32 b = *reinterpret_cast<const Bytes32*>(high + c);
                x = x > a ? x : a;
                *reinterpret_cast<Bytes32*>(w.clamped + size_t(t) * size + c) = x < b ? x : b;
            }
    }

    void gated(Workspace& w, const VoiceBlock& block, int i, int n) const {
        const GatedLayer& layer = block.layers[i];
        const int size = block.size + 32 * i, d = block.dilation;
        clamp(w, layer.low, layer.high, size, n);
        uint8_t* hidden = w.hidden + 2 * kHidden;
        std::memset(hidden - d * kHidden, 0, d * kHidden), std::memset(hidden + n * kHidden, 0, d * kHidden);
        const ByteRows left{w.clamped, size_t(size), size / 4};
        multiply(&left, 1, n, layer.into.weight, kHidden, [&](int t, int c, FloatVec sums) {
            const FloatVec y = sums * load(layer.into.scale + c) + load(layer.into.shift + c);
            store_bytes(hidden + t * kHidden + c, y);
        });
        float gate[32];
        gate_of(layer, hidden, n, gate);
        ByteRows taps[3];
        for (int k = 0; k < 3; k++) taps[k] = {hidden + (k - 1) * d * kHidden, kHidden, kHidden / 4};
        uint8_t* to = w.all + size;
        multiply(taps, 3, n, layer.taps.weight, 32, [&](int t, int c, FloatVec sums) {
            const FloatVec y = sums * load(gate + c) + load(layer.taps.shift + c);
            store_bytes(to + size_t(t) * kWidth + c, y);
        });
    }

    // By how much each new channel counts, times the scale of its sums.
    static void gate_of(const GatedLayer& layer, const uint8_t* hidden, int n, float* gate) {
        float mean[kHidden], inner[64];
        for (int c = 0; c < kHidden; c += kLanes) {
            FloatVec total = {};
            for (int t = 0; t < n; t++) total += load_bytes(hidden + t * kHidden + c);
            store(mean + c, total * load(layer.mean_scale + c) / float(n));
        }
        matrix<64>(layer.squeeze, layer.squeeze_bias, mean, kHidden, inner);
        for (int i = 0; i < 64; i += kLanes) store(inner + i, maximum(load(inner + i), FloatVec{}));
        matrix<32>(layer.excite, layer.excite_bias, inner, 64, gate);
        for (int i = 0; i < 32; i += kLanes)
            store(gate + i, load(layer.taps.scale + i) / (1.0f + exp(-load(gate + i))));
    }

    static void summarize(const float* x, int n, float* out) {
        for (int c = 0; c < kOut; c += kLanes) {
            FloatVec total = {}, squares = {};
            for (int t = 0; t < n; t++) total += load(x + size_t(t) * kOut + c);
            const FloatVec mean = total / float(n);
            for (int t = 0; t < n; t++) {
                const FloatVec d = load(x + size_t(t) * kOut + c) - mean;
                squares += d * d;
            }
            store(out + c, mean);
            store(out + kOut + c, FloatVec(_mm512_sqrt_ps(__m512(squares / float(n - 1)))));
        }
    }
};

#endif

}  // namespace sotto

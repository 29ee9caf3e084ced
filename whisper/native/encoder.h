// Log-mel frames to audio features, thirty rows or so at a time through everything that concerns a row alone.
#pragma once

#include "attention.h"

namespace sotto {

struct EncoderLayer {
    Norm attn_ln, mlp_ln;
    const Linear *qkv, *out, *fc1, *fc2;
};

struct Encoder {
    int n_mels, n_ctx, n_state, n_head, n_layer, type;
    const Linear *conv1, *conv2;      // (n_state, 3 * channels), the three frames one behind the other
    const float* positions;           // (n_ctx, n_state)
    Norm ln_post;
    std::vector<EncoderLayer> layers;

    int inner() const { return inner_type(type); }  // of convolutions and attention
    int d() const { return n_state / n_head; }

    // Encode one window, `mel` (n_mels, 2 n_ctx), into `features` (n_ctx, n_state).
    void run(const float* mel, float* features, int n_threads) {
        const size_t memory = Memory::bytes(inner(), n_ctx, d(), n_head);
        keys_values_.reserve(2 * memory);  // of this layer and the next, which a quick thread has begun
        q_.reserve(inner(), n_ctx, n_state);
        frames_.reserve(inner(), 2 * n_ctx + 2, n_mels);
        hidden_.reserve(inner(), 2 * n_ctx + 2, n_state);
        if (int(work_.size()) < n_threads) work_.resize(n_threads);
        run_team(n_threads, 4 + n_layer, [&](Member& team, int index) { run(team, work_[index], mel, features, memory); });
    }

  private:
    static constexpr int kBlock = 36;  // rows that a thread takes at once
    struct Work {
        Scratch attention;
        Left left, wide;
        Buffer<float> x, y, middle;
    };
    std::vector<Work> work_;
    Buffer<char> keys_values_;
    Left q_, frames_, hidden_;

    void run(Member& team, Work& w, const float* mel, float* x, size_t memory) {
        w.attention.reserve(inner(), n_ctx, d());
        w.left.reserve(type, kBlock, n_state), w.wide.reserve(type, kBlock, 4 * n_state);
        w.x.reserve(std::max(n_mels, n_state)), w.y.reserve(kBlock * n_state), w.middle.reserve(kBlock * 4 * n_state);
        stem(team, w, mel, x);
        auto memory_of = [&](int layer) {
            return Memory{keys_values_ + layer % 2 * memory, inner(), n_ctx, d()};
        };
        blocks(team, n_ctx, [&](int first, int rows) { project(w, layers[0], memory_of(0), x, first, rows); });
        for (int l = 0; l < n_layer; l++) {
                blocks(team, n_ctx, [&](int first, int rows) {
                mix(w, layers[l], memory_of(l), x, first, rows);
                if (l + 1 < n_layer) return project(w, layers[l + 1], memory_of(l + 1), x, first, rows);
                for (int i = first; i < first + rows; i++) {
                    ln_post.apply(x + size_t(i) * n_state, w.x, n_state);
                    std::memcpy(x + size_t(i) * n_state, w.x, n_state * 4);
                }
            });
        }
    }

    template <class F>
    void blocks(Member& team, int n, const F& work) {
        team.each((n + kBlock - 1) / kBlock, [&](int i) { work(i * kBlock, std::min(kBlock, n - i * kBlock)); });
    }

    // The two convolutions. A row of their left side is three frames, which lie one behind the other anyway.
    void stem(Member& team, Work& w, const float* mel, float* x) {
        const int n_frames = 2 * n_ctx;
        blocks(team, n_frames + 2, [&](int first, int rows) {
            for (int i = first; i < first + rows; i++) {  // one frame of zeros at both ends
                const bool inside = i > 0 && i <= n_frames;
                for (int m = 0; m < n_mels; m++) w.x[m] = inside ? mel[size_t(m) * n_frames + i - 1] : 0;
                frames_.set(i, w.x, n_mels);
            }
            std::memset(w.x, 0, n_state * 4);
            if (first == 0) hidden_.set(0, w.x, n_state);
            if (first + rows == n_frames + 2) hidden_.set(n_frames + 1, w.x, n_state);
        });
        blocks(team, n_frames, [&](int first, int rows) {
            for (int p = 0; p < n_panels(n_state); p++)
                conv1->multiply(frames_.rows(first), rows, p, [&](int row, int column, Floats v) {
                    if (column < n_state) store(w.y + row * n_state + column, gelu(v));
                });
            for (int i = 0; i < rows; i++) hidden_.set(first + i + 1, w.y + i * n_state, n_state);
        });
        blocks(team, n_ctx, [&](int first, int rows) {
            Rows left = hidden_.rows(2 * first);
            left.stride *= 2;
            for (int p = 0; p < n_panels(n_state); p++)
                conv2->multiply(left, rows, p, [&](int row, int column, Floats v) {
                    if (column >= n_state) return;
                    const size_t at = size_t(first + row) * n_state + column;
                    store(x + at, gelu(v) + load(positions + at));
                });
        });
    }

    // Queries, keys and values of some rows.
    void project(Work& w, const EncoderLayer& layer, const Memory& memory, const float* x, int first, int rows) {
        for (int i = 0; i < rows; i++) {
            layer.attn_ln.apply(x + size_t(first + i) * n_state, w.x, n_state);
            w.left.set(i, w.x, n_state);
        }
        const float scale = 1 / std::sqrt(float(d()));
        for (int p = 0; p < n_panels(3 * n_state); p++)
            layer.qkv->multiply(w.left.rows(), rows, p, [&](int row, int column, Floats v) {
                if (column < n_state)
                    store(w.y + row * n_state + column, v * scale);
                else if (column < 2 * n_state)
                    memory.set_key(first + row, column - n_state, v);
                else if (column < 3 * n_state)
                    memory.set_value(first + row, column - 2 * n_state, v);
            });
        for (int i = 0; i < rows; i++) q_.set(first + i, w.y + i * n_state, n_state);
    }

    // Attention and perceptron of some rows, added to `x`.
    void mix(Work& w, const EncoderLayer& layer, const Memory& memory, float* x, int first, int rows) {
        for (int h = 0; h < n_head; h++)
            for (int i = 0; i < rows; i += kMaxRows)
                attend(
                    q_.rows(first + i), std::min(kMaxRows, rows - i), memory, h, w.attention,
                    w.y + i * n_state + h * d(), n_state);
        for (int i = 0; i < rows; i++) w.left.set(i, w.y + i * n_state, n_state);
        auto add = [&](int row, int column, Floats v) {
            float* at = x + size_t(first + row) * n_state + column;
            if (column < n_state) store(at, load(at) + v);
        };
        for (int p = 0; p < n_panels(n_state); p++) layer.out->multiply(w.left.rows(), rows, p, add);
        for (int i = 0; i < rows; i++) {
            layer.mlp_ln.apply(x + size_t(first + i) * n_state, w.x, n_state);
            w.left.set(i, w.x, n_state);
        }
        const int wide = 4 * n_state;
        for (int p = 0; p < n_panels(wide); p++)
            layer.fc1->multiply(w.left.rows(), rows, p, [&](int row, int column, Floats v) {
                if (column < wide) store(w.middle + row * wide + column, gelu(v));
            });
        for (int i = 0; i < rows; i++) w.wide.set(i, w.middle + i * wide, wide);
        for (int p = 0; p < n_panels(n_state); p++) layer.fc2->multiply(w.wide.rows(), rows, p, add);
    }
};

}  // namespace sotto

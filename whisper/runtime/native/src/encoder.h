// The encoder: one window of log-mel frames to features.
//
// After the two convolutions each thread takes blocks of positions through everything that
// concerns a position alone: attention and MLP of one layer, then queries, keys and values of the
// next. So a layer costs the threads one synchronization, and a block's activations stay in the
// cache.
//
// Memory. Keys and values of a layer are one packed LayerKV (attention.h); there are two, in turns,
// for the current layer and the next, which the first threads to finish have begun. Convolutions
// and attention are computed in `unquantized_dtype`, all other products in the type of the weights;
// the residual stream is float32.
//
// Order of summation: as in gemm.h and attention.h, so neither blocks nor threads change a number.
#pragma once

#include "attention.h"

namespace sotto {

struct EncoderLayer {
    LayerNorm attn_ln, mlp_ln;
    const Linear *qkv, *out;  // (3 n_state, n_state), (n_state, n_state)
    const Linear *fc1, *fc2;  // (4 n_state, n_state), (n_state, 4 n_state)
};

struct Encoder {
    int n_mels, n_ctx, n_state, n_head, n_layer, dtype, padding_stride;
    const Linear *conv1, *conv2;        // (n_state, 3 n_in): three frames side by side
    const float* positional_embedding;  // (n_ctx, n_state)
    LayerNorm ln_post;
    std::vector<EncoderLayer> layers;

    int kv_dtype() const { return unquantized_dtype(dtype); }
    int head_dim() const { return n_state / n_head; }
    Padding padding() const { return {n_ctx, padding_stride}; }

    // Encode one window of `n` positions and its padding, which the last of them must belong to:
    // `mel` (n_mels, 2 n) into `features` (padding().n_total(n), n_state).
    void encode(const float* mel, float* features, int n, int n_threads) {
        set_length(n);
        q_.reserve(kv_dtype(), n_total_, n_state);
        frames_.reserve(kv_dtype(), 2 * n + 2, n_mels);
        conv1_output_.reserve(kv_dtype(), 2 * n + 2, n_state);
        if (int(workspaces_.size()) < n_threads) workspaces_.resize(n_threads);
        parallel_region(n_threads, 4 + n_layer, [&](Worker& worker, int thread) {
            encode(worker, workspaces_[thread], mel, features);
        });
    }

  private:
    // Positions that a thread takes at once. Each block reads all weights of the layer, and on tiles
    // a block of 36 would wait for them.
    static constexpr int kBlock = kHasTiles ? 64 : 36;
    struct Workspace {  // of one thread
        AttentionWorkspace attention;
        Activations input, mlp_input;  // (kBlock, n_state), (kBlock, 4 n_state)
        Buffer<float> normed;          // (n_state,), or (n_mels,) if that is more
        Buffer<float> attn, hidden;    // (kBlock, n_state), (kBlock, 4 n_state)
    };
    std::vector<Workspace> workspaces_;
    int n_positions_ = 0;       // of the window that is being encoded
    int n_total_ = 0;           // with its padding
    Buffer<char> kv_;           // two LayerKV
    Activations q_;             // (n_total, n_state)
    Activations frames_;        // (2 n_positions + 2, n_mels), with a frame of zeros at both ends
    Activations conv1_output_;  // (2 n_positions + 2, n_state), the same

    // Another number of positions is another layout of `kv_`, and what lies behind the last one
    // must be zero.
    void set_length(int n) {
        const bool is_another = n != n_positions_;
        n_positions_ = n, n_total_ = padding().n_total(n);
        kv_.reserve(2 * layer_kv_bytes());
        if (is_another) std::memset(kv_, 0, 2 * layer_kv_bytes());
    }
    size_t layer_kv_bytes() const {
        return LayerKV::bytes(kv_dtype(), n_total_, head_dim(), n_head);
    }
    LayerKV kv_of(int layer) const {
        char* data = kv_ + layer % 2 * layer_kv_bytes();
        return {data, kv_dtype(), n_total_, head_dim(), n_positions_, padding().score()};
    }

    void encode(Worker& worker, Workspace& w, const float* mel, float* x) {
        w.attention.reserve(kv_dtype(), n_total_, head_dim());
        w.input.reserve(dtype, kBlock, n_state), w.mlp_input.reserve(dtype, kBlock, 4 * n_state);
        w.normed.reserve(std::max(n_mels, n_state));
        w.attn.reserve(kBlock * n_state), w.hidden.reserve(kBlock * 4 * n_state);
        convolve(worker, w, mel, x);
        for_blocks(worker, n_total_, [&](int first, int n) { project_qkv(w, 0, x, first, n); });
        for (int l = 0; l < n_layer; l++) {
            for_blocks(worker, n_total_, [&](int first, int n) {
                self_attention(w, l, x, first, n);
                mlp(w, layers[l], x, first, n);
                if (l + 1 < n_layer) return project_qkv(w, l + 1, x, first, n);
                for (int i = first; i < first + n; i++) {
                    ln_post.apply(x + size_t(i) * n_state, w.normed, n_state);
                    std::memcpy(x + size_t(i) * n_state, w.normed, n_state * 4);
                }
            });
        }
    }

    template <class F>
    static void for_blocks(Worker& worker, int n, const F& body) {
        worker.parallel_for((n + kBlock - 1) / kBlock, [&](int i) {
            body(i * kBlock, std::min(kBlock, n - i * kBlock));
        });
    }

    // Both convolutions, each with GELU, and the positional embedding. A row of their left side is
    // three consecutive frames, which lie behind each other anyway; the second takes every second
    // frame.
    void convolve(Worker& worker, Workspace& w, const float* mel, float* x) {
        const int n_frames = 2 * n_positions_;
        for_blocks(worker, n_frames + 2, [&](int first, int n) { pad_frames(w, mel, first, n); });
        for_blocks(worker, n_frames, [&](int first, int n) {
            for (int p = 0; p < n_panels(n_state); p++)
                conv1->multiply(frames_.view(first), n, p, [&](int i, int column, FloatVec v) {
                    if (column < n_state) store(w.attn + i * n_state + column, gelu(v));
                });
            for (int i = 0; i < n; i++)
                conv1_output_.set_row(first + i + 1, w.attn + i * n_state, n_state);
        });
        for_blocks(worker, n_positions_, [&](int first, int n) {
            ActivationView frames = conv1_output_.view(2 * first);
            frames.stride *= 2;
            for (int p = 0; p < n_panels(n_state); p++)
                conv2->multiply(frames, n, p, [&](int i, int column, FloatVec v) {
                    if (column >= n_state) return;
                    v = gelu(v);
                    set_position(x, first + i, column, v);
                    if (first + i == n_positions_ - 1)  // padding, as all that follows
                        for (int j = n_positions_; j < n_total_; j++) set_position(x, j, column, v);
                });
        });
    }

    // Set what the first layer reads of a position: the convolutions and the positional embedding,
    // which is the mean of those that a position of the padding stands for.
    void set_position(float* x, int i, int column, FloatVec convolved) const {
        const size_t place = padding().place(i, n_positions_);
        const float* own = positional_embedding + place * n_state + column;
        FloatVec embedding = load(own);
        if (i >= n_positions_) {
            for (int j = 1; j < padding_stride; j++) embedding += load(own + j * n_state);
            embedding = embedding / float(padding_stride);
        }
        store(x + size_t(i) * n_state + column, convolved + embedding);
    }

    // Transpose frames of `mel`, with one frame of zeros at both ends, for both convolutions.
    void pad_frames(Workspace& w, const float* mel, int first, int n) {
        const int n_frames = 2 * n_positions_;
        for (int i = first; i < first + n; i++) {
            const bool inside = i > 0 && i <= n_frames;
            for (int m = 0; m < n_mels; m++)
                w.normed[m] = inside ? mel[size_t(m) * n_frames + i - 1] : 0;
            frames_.set_row(i, w.normed, n_mels);
        }
        std::memset(w.normed, 0, n_state * 4);
        if (first == 0) conv1_output_.set_row(0, w.normed, n_state);
        if (first + n == n_frames + 2) conv1_output_.set_row(n_frames + 1, w.normed, n_state);
    }

    // Queries, keys and values of `n` positions for layer `l`.
    void project_qkv(Workspace& w, int l, const float* x, int first, int n) {
        const LayerKV kv = kv_of(l);
        layer_norm(w, layers[l].attn_ln, x, first, n);
        const float scale = 1 / std::sqrt(float(head_dim()));
        for (int p = 0; p < n_panels(3 * n_state); p++)
            layers[l].qkv->multiply(w.input.view(), n, p, [&](int i, int column, FloatVec v) {
                if (column < n_state)
                    store(w.attn + i * n_state + column, v * scale);
                else if (column < 2 * n_state)
                    kv.set_key(first + i, column - n_state, v);
                else if (column < 3 * n_state)
                    kv.set_value(first + i, column - 2 * n_state, v);
            });
        for (int i = 0; i < n; i++) q_.set_row(first + i, w.attn + i * n_state, n_state);
    }

    // x += out(attention(q, k, v))
    void self_attention(Workspace& w, int l, float* x, int first, int n) {
        const LayerKV kv = kv_of(l);
        for (int h = 0; h < n_head; h++)
            for (int i = 0; i < n; i += kMaxQueries)
                attention(
                    q_.view(first + i), std::min(kMaxQueries, n - i), kv, h, w.attention,
                    w.attn + i * n_state + h * head_dim(), n_state);
        for (int i = 0; i < n; i++) w.input.set_row(i, w.attn + i * n_state, n_state);
        multiply_add(*layers[l].out, w.input.view(), x, first, n);
    }

    // x += fc2(gelu(fc1(mlp_ln(x))))
    void mlp(Workspace& w, const EncoderLayer& layer, float* x, int first, int n) {
        layer_norm(w, layer.mlp_ln, x, first, n);
        const int width = 4 * n_state;
        for (int p = 0; p < n_panels(width); p++)
            layer.fc1->multiply(w.input.view(), n, p, [&](int i, int column, FloatVec v) {
                if (column < width) store(w.hidden + i * width + column, gelu(v));
            });
        for (int i = 0; i < n; i++) w.mlp_input.set_row(i, w.hidden + i * width, width);
        multiply_add(*layer.fc2, w.mlp_input.view(), x, first, n);
    }

    // The residual stream of `n` positions, normalized, into `w.input`.
    void layer_norm(Workspace& w, const LayerNorm& norm, const float* x, int first, int n) {
        for (int i = 0; i < n; i++) {
            norm.apply(x + size_t(first + i) * n_state, w.normed, n_state);
            w.input.set_row(i, w.normed, n_state);
        }
    }

    // Multiply `n` rows and add them to the residual stream.
    void multiply_add(
        const Linear& linear, const ActivationView& input, float* x, int first, int n) {
        for (int p = 0; p < n_panels(n_state); p++)
            linear.multiply(input, n, p, [&](int i, int column, FloatVec v) {
                float* at = x + size_t(first + i) * n_state + column;
                if (column < n_state) store(at, load(at) + v);
            });
    }
};

}  // namespace sotto

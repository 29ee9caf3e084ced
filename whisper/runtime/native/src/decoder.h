// The decoder: a flat batch of tokens, each of some KV-cache row, to logits.
//
// n_items tokens run side by side through all layers: a prefill's tokens (many items of one row)
// and the next tokens of other rows (one item each) in the same call. Products take all items at
// once; attention is computed for each item and head.
//
// Memory. One KV-cache row holds (n_layer, 2, n_ctx, n_state): keys, then values, float32 where the
// weights are float32 and bfloat16 otherwise. `Batch::row_table` says for each row and position
// which row's memory holds it, so that beams share their past without copies. The cross-attention's
// keys and values of a window are n_layer packed LayerKV (attention.h), in the same type; in int8
// where the weights are int8 and a head is 64 wide.
//
// Order of summation: products as in gemm.h; self-attention along the head dimension in vectors,
// then over positions from 0 on. An item's numbers are the same in every batch and with any number
// of threads. The exception would be a quantization scale, and there is one for each item.
#pragma once

#include "abi.h"
#include "attention.h"

namespace sotto {

struct DecoderLayer {
    LayerNorm attn_ln, cross_ln, mlp_ln;
    const Linear *qkv, *out;                       // (3 n_state, n_state), (n_state, n_state)
    const Linear *cross_q, *cross_out, *cross_kv;  // cross_kv: (2 n_state, n_state)
    const Linear *fc1, *fc2;                       // (4 n_state, n_state), (n_state, 4 n_state)
};

struct Decoder {
    int n_vocab, n_ctx, n_state, n_head, n_layer, n_audio_ctx, dtype, padding_stride;
    const Linear* token_embedding;      // (n_vocab, n_state): also the last layer
    const float* positional_embedding;  // (n_ctx, n_state)
    LayerNorm ln;
    std::vector<DecoderLayer> layers;

    int head_dim() const { return n_state / n_head; }
    int kv_dtype() const { return dtype == kFloat32 ? kFloat32 : kBfloat16; }
    int cross_kv_dtype() const {
        return dtype == kInt8 && head_dim() == kInt8HeadDim ? kInt8 : kv_dtype();
    }
    size_t kv_row_bytes() const {
        return size_t(n_layer) * 2 * n_ctx * n_state * (kv_dtype() == kFloat32 ? 4 : 2);
    }
    size_t cross_kv_layer_bytes(int n) const {
        return LayerKV::bytes(cross_kv_dtype(), n, head_dim(), n_head);
    }
    // Of a window of `n` positions, those of its padding among them.
    size_t cross_kv_bytes(int n) const { return n_layer * cross_kv_layer_bytes(n); }

    // Compute the keys and values of every layer's cross-attention for one window of `n` positions,
    // at most n_audio_ctx: `features` (n, n_state) into `cross_kv` (cross_kv_bytes(n)). What lies
    // behind the last position is never written, and must be zero.
    void project_cross_kv(const float* features, int n, char* cross_kv, int n_threads) {
        audio_.reserve(sensitive_dtype(dtype), n, n_state);
        if (int(workspaces_.size()) < n_threads) workspaces_.resize(n_threads);
        const bool is_int8 = cross_kv_dtype() == kInt8;
        const int n_tasks = is_int8 ? n_head : n_panels(2 * n_state);  // of a layer
        parallel_region(n_threads, 2, [&](Worker& worker, int thread) {
            Workspace& w = workspaces_[thread];
            worker.parallel_for(n, [&](int i) {
                audio_.set_row(i, features + size_t(i) * n_state, n_state);
            });
            worker.parallel_for(n_layer * n_tasks, [&](int task) {
                const int l = task / n_tasks, part = task % n_tasks;
                const LayerKV kv = cross_kv_of(cross_kv, n, l);
                if (is_int8)
                    project_cross_kv_head(*layers[l].cross_kv, kv, part, w.attention);
                else
                    project_cross_kv_panel(*layers[l].cross_kv, kv, part);
            });
        });
    }

    // Compute the logits of `b.logit_indices`, and write keys and values of all items into their
    // rows.
    void forward(const Batch& b) {
        const size_t n = b.n_items;
        x_.reserve(n * n_state), attn_.reserve(n * n_state), hidden_.reserve(n * 4 * n_state);
        input_.reserve(dtype, n, n_state, kDigits);
        mlp_input_.reserve(sensitive_dtype(dtype), n, 4 * n_state, kDigits);
        q_.reserve(kv_dtype(), n, n_state);
        group_queries(b);
        if (int(workspaces_.size()) < b.n_threads) workspaces_.resize(b.n_threads);
        const int n_phases = 1 + kLayerPhases * n_layer + 3;  // embedding, layers, logits
        parallel_region(b.n_threads, n_phases, [&](Worker& worker, int thread) {
            forward(worker, workspaces_[thread], b);
        });
    }

  private:
    struct Workspace {  // of one thread
        AttentionWorkspace attention;
        Activations input, mlp_input, q;
        Buffer<float> normed, scores;  // (n_state,), (n_ctx,)
    };
    enum Cached { kKey = 0, kValue = 1 };
    struct QueryGroup {  // consecutive items that attend to the same window
        int first, n_items;
    };
    static constexpr int kDigits = 2;               // of int8 inputs; see gemm.h
    static constexpr float kRefined = 12;           // below the largest logit: see `refine_logits`
    static constexpr int kMaxReplicated = 4;        // items; see `activations`
    static constexpr int kLayerPhases = 5 + 6 + 4;  // of self-attention, cross-attention, MLP
    std::vector<Workspace> workspaces_;
    std::vector<QueryGroup> query_groups_;
    Buffer<float> x_;       // (n_items, n_state) the residual stream
    Buffer<float> attn_;    // (n_items, n_state) queries, then the output of self-attention
    Buffer<float> hidden_;  // (n_items, 4 n_state) of the MLP; also the output of cross-attention
    Activations audio_;     // (n, n_state) what keys and values of the cross-attention are made of
    Activations input_, mlp_input_, q_;  // (n_items, n_state), (n_items, 4 n_state), queries

    LayerKV cross_kv_of(char* cross_kv, int n, int l) const {
        const Padding padding = {n_audio_ctx, padding_stride};
        char* data = cross_kv + l * cross_kv_layer_bytes(n);
        return {data, cross_kv_dtype(), n, head_dim(), padding.n_own(n), padding.score()};
    }

    void project_cross_kv_panel(const Linear& linear, const LayerKV& kv, int panel) {
        const ActivationView input = audio_.view();
        linear.multiply(input, kv.n, panel, [&](int position, int column, FloatVec v) {
            if (column < n_state)
                kv.set_key(position, column, v);
            else if (column < 2 * n_state)
                kv.set_value(position, column - n_state, v);
        });
    }
    void project_cross_kv_head(
        const Linear& linear, const LayerKV& kv, int h, AttentionWorkspace& workspace) {
        const ActivationView input = audio_.view();
        float* keys_values[2] = {
            workspace.keys.reserve(kv.n * kInt8HeadDim),
            workspace.values.reserve(kv.n * kInt8HeadDim)};
        for (int i = 0; i < 2; i++) {  // a head is a panel
            const int panel = i * n_head + h;
            linear.multiply(input, kv.n, panel, [&](int position, int column, FloatVec v) {
                store(keys_values[i] + position * kInt8HeadDim + column - panel * kPanelWidth, v);
            });
        }
        quantize_kv(kv, h, keys_values[0], keys_values[1]);
    }

    void group_queries(const Batch& b) {
        query_groups_.clear();
        for (int i = 0; i < b.n_items; i++) {
            const bool same_window = i && b.cross_kv[i] == b.cross_kv[i - 1];
            if (same_window && query_groups_.back().n_items < kMaxQueries)
                query_groups_.back().n_items++;
            else
                query_groups_.push_back({i, 1});
        }
    }

    // Prepare the left side of a product, with `set(activations, i)` for each of `n` rows: few rows
    // by every thread for itself, which is quicker than to wait for the others, many by all threads
    // together. A thread that comes late may prepare its own copy from numbers that the others have
    // overwritten meanwhile; that is harmless, as then no task of the product is left for it.
    // Therefore no product may write what the preparation of its own left side reads.
    template <class F>
    static ActivationView activations(
        Worker& worker, int n, Activations& own, Activations& shared, int dtype, int width,
        const F& set) {
        if (n <= kMaxReplicated) {
            own.reserve(dtype, n, width, kDigits);
            for (int i = 0; i < n; i++) set(own, i);
            return own.view();
        }
        worker.parallel_for(n, [&](int i) { set(shared, i); });
        return shared.view();
    }

    // Multiply `n` rows with `linear`; `out(i, column, values)` gets every vector of columns.
    template <class Out>
    static void multiply(
        Worker& worker, const Linear& linear, const ActivationView& input, int n, const Out& out) {
        const int panels = n_panels(linear.n);
        auto multiply_one = [&](int panel) {
            linear.multiply(input, n, panel, [&](int i, int column, FloatVec v) {
                if (column < linear.n) out(i, column, v);
            });
        };
        const int grain = panels / 8 + 1;  // long sequential reads are quicker
        worker.parallel_for(panels, multiply_one, grain);
    }
    // The same, added to the residual stream.
    void multiply_add(Worker& worker, const Linear& linear, const ActivationView& input, int n) {
        multiply(worker, linear, input, n, [&](int i, int column, FloatVec v) {
            float* at = x_ + size_t(i) * n_state + column;
            store(at, load(at) + v);
        });
    }
    // The residual stream, normalized.
    ActivationView layer_norm(Worker& worker, Workspace& w, const LayerNorm& norm, int n) {
        return activations(worker, n, w.input, input_, dtype, n_state, [&](Activations& to, int i) {
            norm.apply(x_ + size_t(i) * n_state, w.normed, n_state);
            to.set_row(i, w.normed, n_state);
        });
    }

    void forward(Worker& worker, Workspace& w, const Batch& b) {
        w.normed.reserve(n_state), w.scores.reserve(n_ctx + kLanes);
        w.attention.reserve(cross_kv_dtype(), n_audio_ctx, head_dim());
        worker.parallel_for(b.n_items, [&](int i) {
            float* x = x_ + size_t(i) * n_state;
            const float* position = positional_embedding + size_t(b.positions[i]) * n_state;
            token_embedding->unpack_row(b.tokens[i], x);
            for (int j = 0; j < n_state; j++) x[j] += position[j];
        });
        for (int l = 0; l < n_layer; l++) {
            self_attention(worker, w, b, l);
            cross_attention(worker, w, b, l);
            mlp(worker, w, layers[l], b.n_items);
        }
        logits(worker, w, b);
    }

    void logits(Worker& worker, Workspace& w, const Batch& b) {
        const auto input = activations(
            worker, b.n_logits, w.input, input_, dtype, n_state, [&](Activations& to, int i) {
                ln.apply(x_ + size_t(b.logit_indices[i]) * n_state, w.normed, n_state);
                to.set_row(i, w.normed, n_state);
            });
        multiply(worker, *token_embedding, input, b.n_logits, [&](int i, int column, FloatVec v) {
            float* at = b.logits + size_t(i) * n_vocab + column;
            if (column + kLanes <= n_vocab) return store(at, v);
            for (int j = 0; column + j < n_vocab; j++) at[j] = v[j];
        });
        if (token_embedding->remainder)
            worker.parallel_for(b.n_logits, [&](int i) { refine_logits(w, b, i); });
    }

    // Add what the rounding of the token embedding took from the logits that matter. It makes three
    // quarters of the error of int8 in the decoder, and the embedding is half of what a step reads;
    // so only the rows of likely tokens are read again.
    void refine_logits(Workspace& w, const Batch& b, int i) {
        float* logits = b.logits + size_t(i) * n_vocab;
        const float least = max_value(logits, n_vocab) - kRefined;
        ln.apply(x_ + size_t(b.logit_indices[i]) * n_state, w.normed, n_state);
        constexpr int kBlock = 8 * kLanes;  // most blocks hold no likely token
        for (int first = 0; first < n_vocab; first += kBlock) {
            const int end = std::min(first + kBlock, n_vocab);
            if (max_value(logits + first, end - first) < least) continue;
            for (int id = first; id < end; id++)
                if (logits[id] >= least)
                    logits[id] += token_embedding->remainder_product(id, w.normed);
        }
    }

    // Where the key or value of a position of layer `l` begins in a KV-cache row, in numbers.
    size_t cache_offset(int l, Cached kind, int position) const {
        return ((size_t(l) * 2 + kind) * n_ctx + position) * n_state;
    }

    // x += out(attention(qkv(attn_ln(x)))), over the positions of each item's row up to its own.
    void self_attention(Worker& worker, Workspace& w, const Batch& b, int l) {
        const DecoderLayer& layer = layers[l];
        const float scale = 1 / std::sqrt(float(head_dim()));
        const auto normed = layer_norm(worker, w, layer.attn_ln, b.n_items);
        multiply(worker, *layer.qkv, normed, b.n_items, [&](int i, int column, FloatVec v) {
            if (column < n_state) return store(attn_ + size_t(i) * n_state + column, v * scale);
            const Cached kind = column < 2 * n_state ? kKey : kValue;
            const int within = column - (kind == kKey ? 1 : 2) * n_state;
            const size_t to = cache_offset(l, kind, b.positions[i]) + within;
            char* row = b.kv_rows[b.rows[i]];
            if (kv_dtype() == kFloat32)
                store(reinterpret_cast<float*>(row) + to, v);
            else
                store_bf16(reinterpret_cast<bf16*>(row) + to, v);
        });
        worker.parallel_for(b.n_items * n_head, [&](int task) {
            if (kv_dtype() == kFloat32)
                self_attention_head<float>(w, b, l, task / n_head, task % n_head);
            else
                self_attention_head<bf16>(w, b, l, task / n_head, task % n_head);
        });
        const auto input = activations(
            worker, b.n_items, w.input, input_, dtype, n_state,
            [&](Activations& to, int i) { to.set_row(i, attn_ + size_t(i) * n_state, n_state); });
        multiply_add(worker, *layer.out, input, b.n_items);
    }

    static FloatVec load_as_float(const float* p) { return load(p); }
    static FloatVec load_as_float(const bf16* p) { return load_bf16(p); }

    // One head of one item; the output replaces the query in `attn_`.
    template <class T>
    void self_attention_head(Workspace& w, const Batch& b, int l, int item, int h) {
        const int n = b.positions[item] + 1, d = head_dim();
        const int32_t* row_table = b.row_table + size_t(b.rows[item]) * n_ctx;
        float* q = attn_ + size_t(item) * n_state + h * d;  // (d,)
        float* scores = w.scores;                           // (n,)
        auto cached = [&](Cached kind, int position) {  // (d,), from the row that holds it
            const T* row = reinterpret_cast<const T*>(b.kv_rows[row_table[position]]);
            return row + cache_offset(l, kind, position) + h * d;
        };
        float peak = -INFINITY;
        for (int p = 0; p < n; p++) {
            const T* key = cached(kKey, p);
            FloatVec s = {};
            for (int i = 0; i < d; i += kLanes) s += load(q + i) * load_as_float(key + i);
            scores[p] = reduce_sum(s);
            peak = std::max(peak, scores[p]);
        }
        float total = 0;
        for (int p = 0; p < n; p += kLanes) {
            const FloatVec e = exp(load(scores + p) - peak);
            for (int i = 0; i < kLanes && p + i < n; i++) scores[p + i] = e[i], total += e[i];
        }
        for (int i = 0; i < d; i += kLanes) {
            FloatVec mixed = {};
            for (int p = 0; p < n; p++) {
                mixed += scores[p] * load_as_float(cached(kValue, p) + i);
            }
            store(q + i, mixed / total);
        }
    }

    // x += cross_out(attention(cross_q(cross_ln(x)))), over the positions of each item's window.
    void cross_attention(Worker& worker, Workspace& w, const Batch& b, int l) {
        const DecoderLayer& layer = layers[l];
        const float scale = 1 / std::sqrt(float(head_dim()));
        const auto normed = layer_norm(worker, w, layer.cross_ln, b.n_items);
        multiply(worker, *layer.cross_q, normed, b.n_items, [&](int i, int column, FloatVec v) {
            store(attn_ + size_t(i) * n_state + column, v * scale);
        });
        ActivationView q;
        if (cross_kv_dtype() != kInt8) {
            auto set = [&](Activations& to, int i) {
                to.set_row(i, attn_ + size_t(i) * n_state, n_state);
            };
            q = activations(worker, b.n_items, w.q, q_, kv_dtype(), n_state, set);
        }
        worker.parallel_for(int(query_groups_.size()) * n_head, [&](int task) {
            cross_attention_head(w, b, l, query_groups_[task / n_head], task % n_head, q);
        });
        const auto input = activations(
            worker, b.n_items, w.input, input_, dtype, n_state,
            [&](Activations& to, int i) { to.set_row(i, hidden_ + size_t(i) * n_state, n_state); });
        multiply_add(worker, *layer.cross_out, input, b.n_items);
    }

    // One head of a group of items. The output goes to `hidden_`, as other threads may still read
    // `attn_`.
    void cross_attention_head(
        Workspace& w, const Batch& b, int l, const QueryGroup& group, int h,
        const ActivationView& q) {
        const LayerKV kv = cross_kv_of(b.cross_kv[group.first], b.n_positions[group.first], l);
        const size_t first = size_t(group.first) * n_state + h * head_dim();
        float* out = hidden_ + first;
        float* qk = nullptr;
        for (int i = 0; i < b.n_heads; i++)
            if (b.heads[i] == l * n_head + h)
                qk = b.qk + (size_t(i) * b.n_items + group.first) * b.qk_stride;
        const int n = group.n_items;
        if (cross_kv_dtype() == kInt8)
            return attention_int8(
                attn_ + first, n_state, n, kv, h, w.attention, out, qk, b.qk_stride);
        const ActivationView own = {q.groups + group.first * q.stride, q.stride, nullptr, nullptr};
        attention(own, n, kv, h, w.attention, out, n_state, qk, b.qk_stride);
    }

    // x += fc2(gelu(fc1(mlp_ln(x))))
    void mlp(Worker& worker, Workspace& w, const DecoderLayer& layer, int n) {
        const int width = 4 * n_state;
        const auto normed = layer_norm(worker, w, layer.mlp_ln, n);
        multiply(worker, *layer.fc1, normed, n, [&](int i, int column, FloatVec v) {
            store(hidden_ + size_t(i) * width + column, gelu(v));
        });
        const auto input = activations(
            worker, n, w.mlp_input, mlp_input_, layer.fc2->dtype, width,
            [&](Activations& to, int i) { to.set_row(i, hidden_ + size_t(i) * width, width); });
        multiply_add(worker, *layer.fc2, input, n);
    }
};

}  // namespace sotto

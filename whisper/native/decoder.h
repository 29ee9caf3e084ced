// A flat batch of tokens, each of some row of text, to logits.
#pragma once

#include "attention.h"

namespace sotto {

struct DecoderLayer {
    Norm attn_ln, cross_ln, mlp_ln;
    const Linear *qkv, *out, *cross_q, *cross_out, *fc1, *fc2, *cross_kv;
};

// One call; arrays over its items unless said otherwise. The same struct stands in native_runner.py.
struct Batch {
    int32_t n_items, n_wanted, n_threads, n_heads;  // n_heads: whose attention is recorded, usually 0
    const int32_t *tokens, *rows, *positions;
    const int32_t* table;    // (n_rows, n_ctx): which physical row holds a position of a row
    char* const* caches;     // by physical row
    char* const* audios;     // keys and values of the cross-attention
    const int32_t* wanted;   // (n_wanted,) items
    float* logits;           // (n_wanted, n_vocab)
    const int32_t* heads;    // (n_heads,) layer * n_head + head
    float* record;           // (n_heads, n_items, n_audio_ctx)
};

struct Decoder {
    int n_vocab, n_ctx, n_state, n_head, n_layer, n_audio_ctx, type;
    const Linear* vocabulary;  // (n_vocab, n_state): embeds tokens, and gives the logits
    const float* positions;    // (n_ctx, n_state)
    Norm ln;
    std::vector<DecoderLayer> layers;

    int inner() const { return type == kFloat ? kFloat : kBfloat; }
    int d() const { return n_state / n_head; }
    size_t cache_bytes() const { return size_t(n_layer) * 2 * n_ctx * n_state * (inner() == kFloat ? 4 : 2); }
    size_t layer_bytes() const { return Memory::bytes(heard(), n_audio_ctx, d(), n_head); }
    int heard() const { return type == kInt8 && d() == kInt8Width ? kInt8 : inner(); }  // of the cross-attention

    // Keys and values of the cross-attention of every layer.
    void listen(const float* features, char* memory, int n_threads) {
        left_.reserve(type, n_audio_ctx, n_state);
        if (int(work_.size()) < n_threads) work_.resize(n_threads);
        run_team(n_threads, 2, [&](Member& team, int index) {
            team.each(n_audio_ctx, [&](int i) { left_.set(i, features + size_t(i) * n_state, n_state); });
            const int panels = n_panels(2 * n_state), tasks = heard() == kInt8 ? n_head : panels;
            team.each(n_layer * tasks, [&](int task) {
                const int l = task / tasks;
                const Memory to{memory + l * layer_bytes(), heard(), n_audio_ctx, d()};
                if (heard() == kInt8)
                    listen_int8(*layers[l].cross_kv, to, task % tasks, work_[index].attention);
                else
                    listen(*layers[l].cross_kv, to, task % tasks);
            });
        });
    }

    void forward(const Batch& b) {
        const size_t n = b.n_items;
        x_.reserve(n * n_state), y_.reserve(n * n_state), middle_.reserve(n * 4 * n_state);
        left_.reserve(type, n, n_state), wide_.reserve(type, n, 4 * n_state), q_.reserve(inner(), n, n_state);
        make_units(b);
        if (int(work_.size()) < b.n_threads) work_.resize(b.n_threads);
        run_team(b.n_threads, 3 + 16 * n_layer, [&](Member& team, int index) { forward(team, work_[index], b); });
    }

  private:
    struct Work {
        Scratch attention;
        Left left, wide, q;
        Buffer<float> x, scores;
    };
    struct Unit {
        int first, rows;  // neighbouring items that listen to the same audio
    };
    static constexpr int kFew = 4;  // so few items that each thread prepares them all, rather than wait for the others
    std::vector<Work> work_;
    std::vector<Unit> units_;
    Buffer<float> x_, y_, middle_;
    Left left_, wide_, q_;

    void listen(const Linear& linear, const Memory& to, int panel) {
        linear.multiply(left_.rows(), n_audio_ctx, panel, [&](int row, int column, Floats v) {
            if (column < n_state)
                to.set_key(row, column, v);
            else if (column < 2 * n_state)
                to.set_value(row, column - n_state, v);
        });
    }
    void listen_int8(const Linear& linear, const Memory& to, int h, Scratch& scratch) {
        float* halves[2] = {scratch.keys.reserve(n_audio_ctx * kInt8Width), scratch.values.reserve(n_audio_ctx * kInt8Width)};
        for (int half = 0; half < 2; half++) {  // a head is a panel
            const int panel = half * n_head + h;
            linear.multiply(left_.rows(), n_audio_ctx, panel, [&](int row, int column, Floats v) {
                store(halves[half] + row * kInt8Width + column - panel * kPanel, v);
            });
        }
        pack_int8(to, h, halves[0], halves[1]);
    }

    void make_units(const Batch& b) {
        units_.clear();
        for (int i = 0; i < b.n_items; i++) {
            if (i && b.audios[i] == b.audios[i - 1] && units_.back().rows < kMaxRows)
                units_.back().rows++;
            else
                units_.push_back({i, 1});
        }
    }

    // Bring every item's row into a left side: by each thread for itself, or by all together. What a thread prepares for
    // itself may be nonsense where it comes late and the others have gone on; but then nothing is left for it to do.
    // Therefore no task may write what the preparation of its own phase reads.
    template <class F>
    static Rows prepare(Member& team, int n, Left& own, Left& shared, int type, int width, const F& set) {
        if (n <= kFew) {
            own.reserve(type, n, width);
            for (int i = 0; i < n; i++) set(own, i);
            return own.rows();
        }
        team.each(n, [&](int i) { set(shared, i); });
        return shared.rows();
    }

    template <class Out>
    static void product(Member& team, const Linear& linear, const Rows& left, int rows, const Out& out) {
        const int n = n_panels(linear.n);
        auto panel = [&](int p) {
            linear.multiply(left, rows, p, [&](int row, int column, Floats v) {
                if (column < linear.n) out(row, column, v);
            });
        };
        team.each(n, panel, n / 8 + 1);  // neighbours lie behind each other, and long reads are quicker
    }

    Rows normed(Member& team, Work& w, const Norm& norm, int n) {
        return prepare(team, n, w.left, left_, type, n_state, [&](Left& left, int i) {
            norm.apply(x_ + size_t(i) * n_state, w.x, n_state);
            left.set(i, w.x, n_state);
        });
    }
    void add(Member& team, const Linear& linear, const Rows& left, int n) {
        product(team, linear, left, n, [&](int row, int column, Floats v) {
            float* at = x_ + size_t(row) * n_state + column;
            store(at, load(at) + v);
        });
    }

    void forward(Member& team, Work& w, const Batch& b) {
        const int n = b.n_items;
        w.x.reserve(n_state), w.scores.reserve(n_ctx + kLanes), w.attention.reserve(heard(), n_audio_ctx, d());
        team.each(n, [&](int i) {
            vocabulary->read(b.tokens[i], x_ + size_t(i) * n_state);
            for (int j = 0; j < n_state; j++) x_[size_t(i) * n_state + j] += positions[size_t(b.positions[i]) * n_state + j];
        });
        for (int l = 0; l < n_layer; l++) {
            read_text(team, w, b, l);
            listen_to_audio(team, w, b, l);
            think(team, w, layers[l], n);
        }
        const Rows left = prepare(team, b.n_wanted, w.left, left_, type, n_state, [&](Left& to, int i) {
            ln.apply(x_ + size_t(b.wanted[i]) * n_state, w.x, n_state);
            to.set(i, w.x, n_state);
        });
        product(team, *vocabulary, left, b.n_wanted, [&](int row, int column, Floats v) {
            float* at = b.logits + size_t(row) * n_vocab + column;
            if (column + kLanes <= n_vocab) return store(at, v);
            for (int i = 0; column + i < n_vocab; i++) at[i] = v[i];
        });
    }

    // Where the key (or, with `value`, the value) of a physical row's position lies.
    size_t at(int l, bool value, int position) const { return ((size_t(l) * 2 + value) * n_ctx + position) * n_state; }

    void read_text(Member& team, Work& w, const Batch& b, int l) {
        const DecoderLayer& layer = layers[l];
        const float scale = 1 / std::sqrt(float(d()));
        product(team, *layer.qkv, normed(team, w, layer.attn_ln, b.n_items), b.n_items, [&](int row, int column, Floats v) {
            if (column < n_state) return store(y_ + size_t(row) * n_state + column, v * scale);
            const bool value = column >= 2 * n_state;
            const size_t to = at(l, value, b.positions[row]) + column - (value ? 2 : 1) * n_state;
            char* cache = b.caches[b.rows[row]];
            if (inner() == kFloat)
                store(reinterpret_cast<float*>(cache) + to, v);
            else
                store_bf16(reinterpret_cast<bf16*>(cache) + to, v);
        });
        team.each(b.n_items * n_head, [&](int task) {
            if (inner() == kFloat)
                attend_text<float>(w, b, l, task / n_head, task % n_head);
            else
                attend_text<bf16>(w, b, l, task / n_head, task % n_head);
        });
        const Rows left = prepare(team, b.n_items, w.left, left_, type, n_state, [&](Left& to, int i) {
            to.set(i, y_ + size_t(i) * n_state, n_state);
        });
        add(team, *layer.out, left, b.n_items);
    }

    static Floats take(const float* p) { return load(p); }
    static Floats take(const bf16* p) { return load_bf16(p); }

    // One item's head over all that its row has said; the result takes the query's place.
    template <class T>
    void attend_text(Work& w, const Batch& b, int l, int item, int h) {
        const int n = b.positions[item] + 1, width = d();
        const int32_t* table = b.table + size_t(b.rows[item]) * n_ctx;
        float* q = y_ + size_t(item) * n_state + h * width;
        float* scores = w.scores;
        const size_t keys = at(l, false, 0) + h * width, values = at(l, true, 0) + h * width;
        float peak = -INFINITY;
        for (int p = 0; p < n; p++) {
            const T* key = reinterpret_cast<const T*>(b.caches[table[p]]) + keys + size_t(p) * n_state;
            Floats s = {};
            for (int i = 0; i < width; i += kLanes) s += load(q + i) * take(key + i);
            scores[p] = sum(s);
            peak = std::max(peak, scores[p]);
        }
        float total = 0;
        for (int p = 0; p < n; p += kLanes) {
            const Floats e = exponential(load(scores + p) - peak);
            for (int i = 0; i < kLanes && p + i < n; i++) scores[p + i] = e[i], total += e[i];
        }
        for (int i = 0; i < width; i += kLanes) {
            Floats mixed = {};
            for (int p = 0; p < n; p++) {
                const T* value = reinterpret_cast<const T*>(b.caches[table[p]]) + values + size_t(p) * n_state;
                mixed += scores[p] * take(value + i);
            }
            store(q + i, mixed / total);
        }
    }

    void listen_to_audio(Member& team, Work& w, const Batch& b, int l) {
        const DecoderLayer& layer = layers[l];
        const float scale = 1 / std::sqrt(float(d()));
        product(team, *layer.cross_q, normed(team, w, layer.cross_ln, b.n_items), b.n_items,
                [&](int row, int column, Floats v) { store(y_ + size_t(row) * n_state + column, v * scale); });
        Rows q;
        if (heard() != kInt8) {
            q = prepare(team, b.n_items, w.q, q_, inner(), n_state, [&](Left& to, int i) {
                to.set(i, y_ + size_t(i) * n_state, n_state);
            });
        }
        team.each(int(units_.size()) * n_head, [&](int task) {
            const Unit unit = units_[task / n_head];
            const int h = task % n_head;
            const Memory memory{b.audios[unit.first] + l * layer_bytes(), heard(), n_audio_ctx, d()};
            const float* own = y_ + size_t(unit.first) * n_state + h * d();
            float* out = middle_ + size_t(unit.first) * n_state + h * d();  // others may still read y_
            float* record = nullptr;
            for (int i = 0; i < b.n_heads; i++)
                if (b.heads[i] == l * n_head + h)
                    record = b.record + (size_t(i) * b.n_items + unit.first) * n_audio_ctx;
            if (heard() == kInt8)
                return attend_int8(own, n_state, unit.rows, memory, h, w.attention, out, record, n_audio_ctx);
            const Rows rows = {q.units + unit.first * q.stride, q.stride, nullptr, nullptr};
            attend(rows, unit.rows, memory, h, w.attention, out, n_state, record, n_audio_ctx);
        });
        const Rows left = prepare(team, b.n_items, w.left, left_, type, n_state, [&](Left& to, int i) {
            to.set(i, middle_ + size_t(i) * n_state, n_state);
        });
        add(team, *layer.cross_out, left, b.n_items);
    }

    void think(Member& team, Work& w, const DecoderLayer& layer, int n) {
        const int width = 4 * n_state;
        product(team, *layer.fc1, normed(team, w, layer.mlp_ln, n), n,
                [&](int row, int column, Floats v) { store(middle_ + size_t(row) * width + column, gelu(v)); });
        const Rows left = prepare(team, n, w.wide, wide_, type, width, [&](Left& to, int i) {
            to.set(i, middle_ + size_t(i) * width, width);
        });
        add(team, *layer.fc2, left, n);
    }
};

}  // namespace sotto

// The functions that native_runner.py calls; plain C, so that one library serves every Python and every torch.
//
// Each returns 0, or 1 where memory ran out. Memory that is handed in stays the caller's.
#include "choose.h"
#include "decoder.h"
#include "digest.h"
#include "encoder.h"
#include "timing.h"

using namespace sotto;

namespace {

template <class F>
int guarded(const F& work) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

struct Reader {  // takes what a model is made of, one after the other
    void* const* linears;
    const float* const* floats;
    const Linear* linear() { return static_cast<const Linear*>(*linears++); }
    const float* array() { return *floats++; }
    Norm norm() {
        const float* weight = array();
        return {weight, array()};
    }
};

}  // namespace

extern "C" {

int sotto_abi() { return 2; }

int sotto_inner_type(int type) { return inner_type(type); }

void* sotto_arena_new() { return new (std::nothrow) Arena(); }
void sotto_arena_free(void* arena) { delete static_cast<Arena*>(arena); }
size_t sotto_arena_total(void* arena) { return static_cast<Arena*>(arena)->total(); }

// Lives in the arena, and as long.
void* sotto_linear_new(void* arena, int type, int n, int k) {
    try {
        auto& memory = *static_cast<Arena*>(arena);
        return new (memory.take(sizeof(Linear))) Linear(memory, type, n, k);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void sotto_linear_fill(void* linear, int first, int count, const float* weight, const float* bias, int n_threads) {
    static_cast<Linear*>(linear)->fill(first, count, weight, bias, n_threads);
}

// dims: n_mels n_ctx n_state n_head n_layer type
void* sotto_encoder_new(const int32_t* dims, void* const* linears, const float* const* floats) {
    auto* e = new (std::nothrow) Encoder();
    if (!e) return nullptr;
    e->n_mels = dims[0], e->n_ctx = dims[1], e->n_state = dims[2], e->n_head = dims[3], e->n_layer = dims[4];
    e->type = dims[5];
    Reader reader{linears, floats};
    e->conv1 = reader.linear(), e->conv2 = reader.linear();
    e->positions = reader.array(), e->ln_post = reader.norm();
    for (int l = 0; l < e->n_layer; l++) {
        EncoderLayer layer;
        layer.attn_ln = reader.norm(), layer.mlp_ln = reader.norm();
        layer.qkv = reader.linear(), layer.out = reader.linear();
        layer.fc1 = reader.linear(), layer.fc2 = reader.linear();
        e->layers.push_back(layer);
    }
    return e;
}
void sotto_encoder_free(void* encoder) { delete static_cast<Encoder*>(encoder); }
int sotto_encode(void* encoder, const float* mel, float* features, int n_threads) {
    return guarded([&] { static_cast<Encoder*>(encoder)->run(mel, features, n_threads); });
}

// dims: n_vocab n_ctx n_state n_head n_layer n_audio_ctx type
void* sotto_decoder_new(const int32_t* dims, void* const* linears, const float* const* floats) {
    auto* d = new (std::nothrow) Decoder();
    if (!d) return nullptr;
    d->n_vocab = dims[0], d->n_ctx = dims[1], d->n_state = dims[2], d->n_head = dims[3], d->n_layer = dims[4];
    d->n_audio_ctx = dims[5], d->type = dims[6];
    Reader reader{linears, floats};
    d->vocabulary = reader.linear();
    d->positions = reader.array(), d->ln = reader.norm();
    for (int l = 0; l < d->n_layer; l++) {
        DecoderLayer layer;
        layer.attn_ln = reader.norm(), layer.cross_ln = reader.norm(), layer.mlp_ln = reader.norm();
        layer.qkv = reader.linear(), layer.out = reader.linear();
        layer.cross_q = reader.linear(), layer.cross_out = reader.linear(), layer.cross_kv = reader.linear();
        layer.fc1 = reader.linear(), layer.fc2 = reader.linear();
        d->layers.push_back(layer);
    }
    return d;
}
void sotto_decoder_free(void* decoder) { delete static_cast<Decoder*>(decoder); }
size_t sotto_row_bytes(void* decoder) { return static_cast<Decoder*>(decoder)->cache_bytes(); }
size_t sotto_audio_bytes(void* decoder) {
    auto* d = static_cast<Decoder*>(decoder);
    return d->n_layer * d->layer_bytes();
}
int sotto_listen(void* decoder, const float* features, char* memory, int n_threads) {
    return guarded([&] { static_cast<Decoder*>(decoder)->listen(features, memory, n_threads); });
}
int sotto_forward(void* decoder, const Batch* batch) {
    return guarded([&] { static_cast<Decoder*>(decoder)->forward(*batch); });
}

void sotto_choose(const Choice* choice) {
    run_team(choice->n_rows > 1 ? choice->n_threads : 1, 1, [&](Member& team, int) {
        team.each(choice->n_rows, [&](int row) { choose_row(*choice, row); });
    });
}

// Log-probability of one token in each row, among the first `n` of `stride`.
void sotto_logprobs(const float* logits, int n_rows, int stride, int n, const int32_t* ids, float* out, int n_threads) {
    run_team(n_threads, 1, [&](Member& team, int) {
        team.each(n_rows, [&](int row) {
            const float* x = logits + size_t(row) * stride;
            out[row] = x[ids[row]] - log_sum(x, n, largest(x, n));
        });
    });
}

// A digest of each of `n` pieces of memory; see digest.h.
int sotto_digests(const void* const* data, const size_t* sizes, int n, uint64_t* out, int n_threads) {
    return guarded([&] { digests(data, sizes, n, out, n_threads); });
}

int sotto_median(const float* x, float* out, int n_rows, int n, int n_threads) {
    return guarded([&] {
        run_team(n_threads, 1, [&](Member& team, int) {
            Buffer<float> padded(n + 24);
            team.each(n_rows, [&](int row) { median_row(x + size_t(row) * n, out + size_t(row) * n, n, padded); });
        });
    });
}

// The mean over heads of what each attends to: `qk` (n_heads, n_rows, stride) to `out` (n_rows, n), with room for
// (n_heads, n_rows, n) in `each`. 2 where that is not defined.
int sotto_focus(
    const float* qk, int n_heads, int n_rows, int stride, int n, float scale, float* each, float* out, int n_threads) {
    std::atomic<bool> defined{true};
    const int failed = guarded([&] {
        run_team(std::min(n_threads, n_heads), 1, [&](Member& team, int) {
            Focus focus;
            team.each(n_heads, [&](int head) {
                if (!focus.run(qk + size_t(head) * n_rows * stride, n_rows, stride, n, scale, each + size_t(head) * n_rows * n))
                    defined = false;
            });
        });
        for (size_t i = 0; i < size_t(n_rows) * n; i++) {
            float total = 0;
            for (int head = 0; head < n_heads; head++) total += each[size_t(head) * n_rows * n + i];
            out[i] = total / n_heads;
        }
    });
    return failed ? 1 : defined ? 0 : 2;
}
int sotto_warp(const double* x, int n, int m, int32_t* rows, int32_t* columns, int32_t* length) {
    return guarded([&] { *length = warp(x, n, m, rows, columns); });
}
}

// The C interface of the kernels: what Python calls through ctypes. Plain C, so that one library
// serves every version of Python and of PyTorch; the structs are in abi.h, and Python declares the
// functions' parameters in one table.
//
// Functions that return int return a status: 0, or kNoMemory; nothing else can fail, as the caller
// checks shapes. Those that make an object return null where memory ran out. Memory that is handed
// in stays the caller's. All are one translation unit, so that everything may be inlined.
#include <deque>

#include "abi.h"
#include "token_selection.h"
#include "decoder.h"
#include "digest.h"
#include "encoder.h"
#include "segmentation.h"
#include "voices.h"
#include "word_times.h"

using namespace sotto;

namespace {

enum Status { kOk = 0, kNoMemory = 1, kUndefined = 2 };

template <class F>
int status_of(const F& work) {
    try {
        work();
        return kOk;
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
}

// Linear layers, and the arena of their numbers, which holds no addresses.
struct PackedWeights {
    Arena memory;
    std::deque<Linear> linears;
};

// Takes the parts of a model one after the other; the caller lists them in the order in which they
// are taken here.
struct ParameterReader {
    void* const* linears;
    const float* const* arrays;
    const Linear* linear() { return static_cast<const Linear*>(*linears++); }
    const float* array() { return *arrays++; }
    LayerNorm layer_norm() {
        const float* weight = array();
        return {weight, array()};
    }
};

}  // namespace

extern "C" {

// ---- What the library is: compared with what Python expects when it is loaded ----

int sotto_abi() { return 8; }

// sizeof a struct of abi.h; 0 for an unknown name.
size_t sotto_struct_size(const char* name) {
    const struct {
        const char* name;
        size_t size;
    } structs[] = {
        {"EncoderDims", sizeof(EncoderDims)},
        {"DecoderDims", sizeof(DecoderDims)},
        {"Batch", sizeof(Batch)},
        {"TokenSelection", sizeof(TokenSelection)},
    };
    for (const auto& s : structs)
        if (!std::strcmp(name, s.name)) return s.size;
    return 0;
}

int sotto_unquantized_dtype(int dtype) { return unquantized_dtype(dtype); }
int sotto_sensitive_dtype(int dtype) { return sensitive_dtype(dtype); }

// Ask the system for the instructions that a process must ask for: AMX. 0 where it grants them.
int sotto_prepare() {
#if defined(__AMX_TILE__) && defined(__linux__)
    constexpr int kRequestPermission = 0x1023, kTileData = 18;  // asm/prctl.h; a bit of XCR0
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) ? 1 : 0;
#else
    return 0;
#endif
}

// ---- Weights ----

void* sotto_arena_new() { return new (std::nothrow) PackedWeights(); }
void sotto_arena_free(void* arena) { delete static_cast<PackedWeights*>(arena); }

// Where the arena's region `i` lies, and how much of it is in use; null behind the last. The same
// layers made in the same order lie in the same places of regions of the same sizes, so that what
// is read from one arena can be written into another.
void* sotto_arena_region(void* arena, int i, size_t* used) {
    return static_cast<PackedWeights*>(arena)->memory.region(i, *used);
}

// A linear layer (n, k) of zeros, which lives as long as the arena with its numbers; in int8 with
// what rounding left of its weight, if that is asked for.
void* sotto_linear_new(void* arena, int dtype, int n, int k, int keep_remainder) {
    try {
        auto& weights = *static_cast<PackedWeights*>(arena);
        return &weights.linears.emplace_back(weights.memory, dtype, n, k, keep_remainder);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

// Pack rows `first` to `first + count` of its weight, (count, k), and their bias, (count,) or null.
void sotto_linear_pack(
    void* linear, int first, int count, const float* weight, const float* bias, int n_threads) {
    static_cast<Linear*>(linear)->pack_rows(first, count, weight, bias, n_threads);
}

// ---- Encoder ----

// Linears: conv1, conv2; of each layer qkv, out, fc1, fc2. Arrays: positional embedding, ln_post;
// of each layer attn_ln, mlp_ln, each weight and bias. Both live as long as the encoder.
void* sotto_encoder_new(const EncoderDims* dims, void* const* linears, const float* const* arrays) {
    auto* e = new (std::nothrow) Encoder();
    if (!e) return nullptr;
    e->n_mels = dims->n_mels, e->n_ctx = dims->n_ctx, e->n_state = dims->n_state;
    e->n_head = dims->n_head, e->n_layer = dims->n_layer;
    e->dtype = dims->dtype, e->padding_stride = dims->padding_stride;
    ParameterReader reader{linears, arrays};
    e->conv1 = reader.linear(), e->conv2 = reader.linear();
    e->positional_embedding = reader.array(), e->ln_post = reader.layer_norm();
    for (int l = 0; l < e->n_layer; l++) {
        EncoderLayer layer;
        layer.attn_ln = reader.layer_norm(), layer.mlp_ln = reader.layer_norm();
        layer.qkv = reader.linear(), layer.out = reader.linear();
        layer.fc1 = reader.linear(), layer.fc2 = reader.linear();
        e->layers.push_back(layer);
    }
    return e;
}
void sotto_encoder_free(void* encoder) { delete static_cast<Encoder*>(encoder); }

// `mel` (n_mels, 2 n) to `features` (n and positions of the padding, n_state), n at most n_ctx.
int sotto_encode(void* encoder, const float* mel, float* features, int n, int n_threads) {
    return status_of([&] { static_cast<Encoder*>(encoder)->encode(mel, features, n, n_threads); });
}

// ---- Decoder ----

// Linears: token embedding; of each layer qkv, out, cross_q, cross_out, cross_kv, fc1, fc2. Arrays:
// positional embedding, ln; of each layer attn_ln, cross_ln, mlp_ln, each weight and bias.
void* sotto_decoder_new(const DecoderDims* dims, void* const* linears, const float* const* arrays) {
    auto* d = new (std::nothrow) Decoder();
    if (!d) return nullptr;
    d->n_vocab = dims->n_vocab, d->n_ctx = dims->n_ctx, d->n_state = dims->n_state;
    d->n_head = dims->n_head, d->n_layer = dims->n_layer;
    d->n_audio_ctx = dims->n_audio_ctx, d->dtype = dims->dtype;
    d->padding_stride = dims->padding_stride;
    ParameterReader reader{linears, arrays};
    d->token_embedding = reader.linear();
    d->positional_embedding = reader.array(), d->ln = reader.layer_norm();
    for (int l = 0; l < d->n_layer; l++) {
        DecoderLayer layer;
        layer.attn_ln = reader.layer_norm();
        layer.cross_ln = reader.layer_norm();
        layer.mlp_ln = reader.layer_norm();
        layer.qkv = reader.linear(), layer.out = reader.linear();
        layer.cross_q = reader.linear(), layer.cross_out = reader.linear();
        layer.cross_kv = reader.linear();
        layer.fc1 = reader.linear(), layer.fc2 = reader.linear();
        d->layers.push_back(layer);
    }
    return d;
}
void sotto_decoder_free(void* decoder) { delete static_cast<Decoder*>(decoder); }

// Bytes of one KV-cache row, and of the keys and values of the cross-attention of a window of `n`
// positions.
size_t sotto_kv_row_bytes(void* decoder) {
    return static_cast<Decoder*>(decoder)->kv_row_bytes();
}
size_t sotto_cross_kv_bytes(void* decoder, int n) {
    return static_cast<Decoder*>(decoder)->cross_kv_bytes(n);
}

// `features` (n, n_state) to `cross_kv`, which must be zero before its first use, and keeps its n.
int sotto_project_cross_kv(
    void* decoder, const float* features, int n, char* cross_kv, int n_threads) {
    auto* d = static_cast<Decoder*>(decoder);
    return status_of([&] { d->project_cross_kv(features, n, cross_kv, n_threads); });
}
// The logits of some items of `batch`; keys and values of all items go to their rows.
int sotto_forward(void* decoder, const Batch* batch) {
    return status_of([&] { static_cast<Decoder*>(decoder)->forward(*batch); });
}

// ---- Token selection ----

void sotto_select_tokens(const TokenSelection* selection) {
    const int n_threads = selection->n_rows > 1 ? selection->n_threads : 1;
    parallel_region(n_threads, 1, [&](Worker& worker, int) {
        worker.parallel_for(selection->n_rows, [&](int row) { select_tokens(*selection, row); });
    });
}

// Log-probability of the token `ids[row]` in each row of `logits` (n_rows, stride), among the first
// `n`.
void sotto_token_logprobs(
    const float* logits, int n_rows, int stride, int n, const int32_t* ids, float* logprobs,
    int n_threads) {
    parallel_region(n_threads, 1, [&](Worker& worker, int) {
        worker.parallel_for(n_rows, [&](int row) {
            const float* x = logits + size_t(row) * stride;
            logprobs[row] = x[ids[row]] - log_sum_exp(x, n, max_value(x, n));
        });
    });
}

// ---- Weights: whether they have changed ----

// 64-bit digests of `n` blocks of memory; see digest.h.
int sotto_digests(const void* const* data, const size_t* sizes, int n, uint64_t* out, int n_threads) {
    return status_of([&] { digests(data, sizes, n, out, n_threads); });
}

// ---- Voices ----

// The voice encoder of voices.h; its arrays live as long as it. Null where this processor has none.
void* sotto_voices_new(const void* const* arrays) {
#if defined(__AVX512VNNI__)
    try {
        return new VoiceEncoder(arrays);
    } catch (const std::bad_alloc&) {
    }
#endif
    return nullptr;
}
void sotto_voices_free(void* encoder) {
#if defined(__AVX512VNNI__)
    delete static_cast<VoiceEncoder*>(encoder);
#endif
}

// `mel` (starts[n], 80) of pieces of an even number of frames, to `out` (n, 1024).
int sotto_embed_voices(
    void* encoder, const float* mel, const int32_t* starts, int n, float* out, int n_threads) {
#if defined(__AVX512VNNI__)
    return status_of([&] { static_cast<VoiceEncoder*>(encoder)->embed(mel, starts, n, out, n_threads); });
#else
    return kUndefined;
#endif
}

// ---- Speakers ----

// The segmentation of segmentation.h; its arrays live as long as it. Null where this processor has none.
void* sotto_segmentation_new(const void* const* arrays) {
#if defined(__AVX512VNNI__)
    try {
        return new Segmentation(arrays);
    } catch (const std::bad_alloc&) {
    }
#endif
    return nullptr;
}
void sotto_segmentation_free(void* segmentation) {
#if defined(__AVX512VNNI__)
    delete static_cast<Segmentation*>(segmentation);
#endif
}

// Windows of `sound` that begin at `starts` (n,), `n_samples` each, to classes `out` (n, n_frames).
int sotto_segment(
    void* segmentation, const float* sound, const int64_t* starts, int n, int n_samples, uint8_t* out,
    int n_threads) {
#if defined(__AVX512VNNI__)
    return status_of([&] {
        static_cast<Segmentation*>(segmentation)->classes(sound, starts, n, n_samples, out, n_threads);
    });
#else
    return kUndefined;
#endif
}

// ---- Word times ----

// Median filter of width 7 over each row of `x` (n_rows, n), n > 3.
int sotto_median_filter(const float* x, float* out, int n_rows, int n, int n_threads) {
    return status_of([&] {
        parallel_region(n_threads, 1, [&](Worker& worker, int) {
            Buffer<float> padded(n + 24);
            worker.parallel_for(n_rows, [&](int row) {
                median_filter(x + size_t(row) * n, out + size_t(row) * n, n, padded);
            });
        });
    });
}

// Cross-attention scores `qk` (n_heads, n_tokens, stride) to how much each token stands out at each
// position, `out` (n_tokens, n): the mean over heads of what AttentionNormalizer gives, which goes
// to `by_head` (n_heads, n_tokens, n). kUndefined where a position does not vary in some head.
int sotto_normalize_attention(
    const float* qk, int n_heads, int n_tokens, int stride, int n, float scale, float* by_head,
    float* out, int n_threads) {
    const size_t size = size_t(n_tokens) * n;
    std::atomic<bool> defined{true};
    const int status = status_of([&] {
        parallel_region(std::min(n_threads, n_heads), 1, [&](Worker& worker, int) {
            AttentionNormalizer normalizer;
            worker.parallel_for(n_heads, [&](int head) {
                const float* scores = qk + size_t(head) * n_tokens * stride;
                float* weights = by_head + head * size;
                if (!normalizer.run(scores, n_tokens, stride, n, scale, weights)) defined = false;
            });
        });
        for (size_t i = 0; i < size; i++) {
            float total = 0;
            for (int head = 0; head < n_heads; head++) total += by_head[head * size + i];
            out[i] = total / n_heads;
        }
    });
    return status == kOk && !defined ? kUndefined : status;
}

// The cheapest path through `costs` (n, m), from its end, into `rows` and `columns` (n + m,).
int sotto_dtw(const double* costs, int n, int m, int32_t* rows, int32_t* columns, int32_t* length) {
    return status_of([&] { *length = dtw(costs, n, m, rows, columns); });
}
}

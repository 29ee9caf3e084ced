// Runs a library of kernels where there is no Python: reads a job from a file, calls the C interface as runner.py does,
// and writes all results to another file. emulation.py writes the jobs and reads the results.
//
//     driver KERNELS JOB RESULTS
//
// A file is a list of arrays: a kind ('i' int32, 'f' float32, 'd' float64, 'b' bytes), the number of elements in 8
// bytes, the elements. A job has them in the order in which they are read here; in the results each is preceded by its
// name. Little-endian, as all processors that it runs on.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "abi.h"

using namespace sotto;

[[noreturn]] static void fail(const std::string& reason) {
    std::fprintf(stderr, "driver: %s\n", reason.c_str());
    std::exit(1);
}

static void* library;

// Call the function `name` of the library, which returns a Result.
template <class Result, class... Arguments>
Result call(const char* name, Arguments... arguments) {
    void* function = dlsym(library, name);
    if (!function) fail(std::string("no function ") + name);
    return reinterpret_cast<Result (*)(Arguments...)>(function)(arguments...);
}

template <class... Arguments>
void check(const char* name, Arguments... arguments) {
    if (int status = call<int>(name, arguments...)) fail(name + (" gave " + std::to_string(status)));
}

// ---- Files ----

template <class T> constexpr char kKind = 'b';
template <> constexpr char kKind<int32_t> = 'i';
template <> constexpr char kKind<float> = 'f';
template <> constexpr char kKind<double> = 'd';

static FILE *job, *results;

template <class T>
std::vector<T> take() {
    uint64_t n;
    if (std::fgetc(job) != kKind<T> || std::fread(&n, 8, 1, job) != 1) fail("the job has another array here");
    std::vector<T> array(n);
    if (std::fread(array.data(), sizeof(T), n, job) != n) fail("the job is cut off");
    return array;
}
static int32_t take_number() { return take<int32_t>().at(0); }

template <class T>
void put(const std::string& name, const T* array, uint64_t n) {
    std::fprintf(results, "%s\n%c", name.c_str(), kKind<T>);
    if (std::fwrite(&n, 8, 1, results) != 1 || std::fwrite(array, sizeof(T), n, results) != n) fail("cannot write");
}
template <class T>
void put(const std::string& name, const std::vector<T>& array) { put(name, array.data(), array.size()); }

// ---- The model ----

// The parts of an encoder or a decoder: packed matrices, and float32 arrays that live as long.
struct Parts {
    std::vector<void*> linears;
    std::vector<std::vector<float>> arrays;
    std::vector<const float*> pointers;
};

static Parts take_parts(void* arena, int n_threads) {
    Parts parts;
    for (int left = take_number(); left; left--) {
        const auto shape = take<int32_t>();  // dtype, n, k, keep_remainder
        const auto weight = take<float>(), bias = take<float>();
        void* linear = call<void*>("sotto_linear_new", arena, shape[0], shape[1], shape[2], shape[3]);
        if (!linear) fail("no memory for a matrix");
        const float* b = bias.empty() ? nullptr : bias.data();
        call<void>("sotto_linear_pack", linear, 0, shape[1], weight.data(), b, n_threads);
        parts.linears.push_back(linear);
    }
    for (int left = take_number(); left; left--) parts.arrays.push_back(take<float>());
    for (const auto& array : parts.arrays) parts.pointers.push_back(array.data());
    return parts;
}

template <class Dims>
void* make(const char* name, const std::vector<int32_t>& numbers, const Parts& parts) {
    if (numbers.size() * 4 != sizeof(Dims)) fail("dimensions of another interface");
    const auto* dims = reinterpret_cast<const Dims*>(numbers.data());
    void* made = call<void*>(name, dims, parts.linears.data(), parts.pointers.data());
    return made ? made : (fail(name), nullptr);
}

// ---- What is called ----

// Each batch of the job on rows of its own memory; puts the logits of each, and returns the last.
static std::vector<float> run_batches(void* decoder, const DecoderDims& dims, std::vector<char>& window, int n, int n_threads) {
    const int n_rows = take_number();
    const auto heads = take<int32_t>();
    std::vector<std::vector<char>> memory(n_rows, std::vector<char>(call<size_t>("sotto_kv_row_bytes", decoder)));
    std::vector<char*> rows_of_memory;
    for (auto& row : memory) rows_of_memory.push_back(row.data());
    std::vector<int32_t> table;
    for (int row = 0; row < n_rows; row++) table.insert(table.end(), dims.n_ctx, row);
    std::vector<float> logits;
    const int n_batches = take_number();
    for (int i = 0; i < n_batches; i++) {
        const auto tokens = take<int32_t>(), rows = take<int32_t>(), positions = take<int32_t>(), wanted = take<int32_t>();
        const std::vector<char*> windows(tokens.size(), window.data());
        const std::vector<int32_t> n_positions(tokens.size(), n);
        std::vector<float> qk(heads.size() * tokens.size() * n);
        logits.assign(wanted.size() * dims.n_vocab, 0);
        Batch batch = {int(tokens.size()), int(wanted.size()), n_threads, int(heads.size()), n,
                       tokens.data(), rows.data(), positions.data(), table.data(), rows_of_memory.data(),
                       windows.data(), n_positions.data(), wanted.data(), logits.data(), heads.data(), qk.data()};
        check("sotto_forward", decoder, static_cast<const Batch*>(&batch));
        put("logits " + std::to_string(i), logits);
        put("qk " + std::to_string(i), qk);
    }
    return logits;
}

static void run_selection(const DecoderDims& dims, std::vector<float> logits, int n_threads) {
    const auto numbers = take<int32_t>(), suppressed = take<int32_t>();  // n_best, timestamp_begin; one set for all
    const int n_rows = int(logits.size()) / dims.n_vocab, n_best = numbers[0];
    const int32_t* sets[] = {suppressed.data()};
    const int32_t n_suppressed[] = {int32_t(suppressed.size())};
    const std::vector<int32_t> zeros(n_rows), begin(n_rows, numbers[1]), end(n_rows, dims.n_vocab);
    const std::vector<uint8_t> mass(n_rows, 1);
    std::vector<int32_t> ids(n_rows * n_best);
    std::vector<float> logprobs(n_rows * n_best), own(n_rows);
    call<void>("sotto_token_logprobs", static_cast<const float*>(logits.data()), n_rows, dims.n_vocab, dims.n_vocab,
               zeros.data(), own.data(), n_threads);
    TokenSelection selection = {n_rows, dims.n_vocab, n_best, n_threads, numbers[1], logits.data(), sets, n_suppressed,
                                zeros.data(), zeros.data(), begin.data(), end.data(), mass.data(), ids.data(), logprobs.data()};
    call<void>("sotto_select_tokens", static_cast<const TokenSelection*>(&selection));
    put("ids", ids), put("logprobs", logprobs), put("logprobs of token 0", own);
}

// What needs no model: digests, and the steps of word times.
static void run_others(int n_threads) {
    const auto bytes = take<char>();
    const void* blocks[] = {bytes.data()};
    const size_t sizes[] = {bytes.size()};
    uint64_t digest;
    check("sotto_digests", static_cast<const void* const*>(blocks), static_cast<const size_t*>(sizes), 1, &digest, n_threads);
    put("digest", reinterpret_cast<char*>(&digest), 8);

    const auto shape = take<int32_t>();  // heads, tokens, positions
    const auto qk = take<float>();
    const int size = shape[1] * shape[2];
    std::vector<float> filtered(qk.size()), by_head(qk.size()), mean(size);
    check("sotto_median_filter", qk.data(), filtered.data(), shape[0] * shape[1], shape[2], n_threads);
    check("sotto_normalize_attention", qk.data(), shape[0], shape[1], shape[2], shape[2], 1.0f, by_head.data(),
          mean.data(), n_threads);
    put("median", filtered), put("normalized", mean);

    const auto costs = take<double>();
    std::vector<int32_t> rows(shape[1] + shape[2]), columns(shape[1] + shape[2]);
    int32_t length;
    check("sotto_dtw", costs.data(), shape[1], shape[2], rows.data(), columns.data(), &length);
    put("path rows", rows.data(), length), put("path columns", columns.data(), length);
}

int main(int, char** arguments) {
    library = dlopen(arguments[1], RTLD_NOW);
    if (!library) fail(dlerror());
    job = std::fopen(arguments[2], "rb"), results = std::fopen(arguments[3], "wb");
    if (!job || !results) fail("cannot open the files");
    check("sotto_prepare");
    const int n_threads = take_number();
    void* arena = call<void*>("sotto_arena_new");

    const auto encoder_dims = take<int32_t>();
    const Parts encoder_parts = take_parts(arena, n_threads);
    void* encoder = make<EncoderDims>("sotto_encoder_new", encoder_dims, encoder_parts);
    const auto decoder_dims = take<int32_t>();
    const Parts decoder_parts = take_parts(arena, n_threads);
    void* decoder = make<DecoderDims>("sotto_decoder_new", decoder_dims, decoder_parts);
    const DecoderDims dims = *reinterpret_cast<const DecoderDims*>(decoder_dims.data());

    const int n_own = take_number(), n = take_number();  // without and with those of the padding
    const auto mel = take<float>();
    std::vector<float> features(size_t(n) * dims.n_state);
    check("sotto_encode", encoder, mel.data(), features.data(), n_own, n_threads);
    put("features", features);
    std::vector<char> window(call<size_t>("sotto_cross_kv_bytes", decoder, n));
    check("sotto_project_cross_kv", decoder, static_cast<const float*>(features.data()), n, window.data(), n_threads);

    const auto logits = run_batches(decoder, dims, window, n, n_threads);
    run_selection(dims, logits, n_threads);
    run_others(n_threads);
    call<void>("sotto_decoder_free", decoder), call<void>("sotto_encoder_free", encoder);
    call<void>("sotto_arena_free", arena);
    if (std::fclose(results)) fail("cannot write");
}

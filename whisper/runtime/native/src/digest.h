// Digests of memory: whether weights are, byte for byte, those that were packed.
//
// Every byte counts and so does its place. Each 32-bit word is multiplied by a key of its place in a block and summed
// in its own column (multilinear hashing: Lemire and Kaser 2014, doi:10.1093/comjnl/bxs144); after each block the
// columns are mixed, so that equal places of different blocks do not cancel. The keys are odd and the mixing can be
// undone: where a single word differs, so do the digests, always. Not against forgery: the keys are known.
#pragma once

#include "base.h"

namespace sotto {

constexpr int kDigestColumns = 16, kDigestRows = 16;
constexpr size_t kDigestRow = kDigestColumns * sizeof(uint32_t), kDigestBlock = kDigestRow * kDigestRows;
constexpr size_t kDigestPiece = size_t(1) << 20;  // bytes that one task takes

typedef uint64_t Words __attribute__((vector_size(4 * kLanes), aligned(1), may_alias));
constexpr int kWordsInRow = kDigestRow / sizeof(Words);

template <class T>
constexpr T mixed(T x) {
    x = (x ^ (x >> 32)) * 0x9e3779b97f4a7c15;  // 2^64 divided by the golden ratio
    return x ^ (x >> 29);
}

// Products of the lower halves.
inline Words lower_product(Words a, Words b) {
#if defined(__AVX512F__)
    return Words(_mm512_mul_epu32(__m512i(a), __m512i(b)));
#elif defined(__AVX2__)
    return Words(_mm256_mul_epu32(__m256i(a), __m256i(b)));
#else
    return (a & 0xffffffff) * (b & 0xffffffff);
#endif
}

struct DigestKeys {  // of 32 bits, two in each, both odd
    alignas(64) uint64_t at[kDigestRows][kDigestColumns / 2];
    constexpr DigestKeys() : at() {
        uint64_t n = 0;
        for (auto& row : at)
            for (uint64_t& keys : row) keys = mixed(mixed(++n)) | 0x100000001;
    }
};
constexpr DigestKeys kDigestKeys{};

struct DigestColumns {  // even words and odd ones
    Words even[kWordsInRow] = {}, odd[kWordsInRow] = {};

    void add(const char* data, int n_rows) {
        for (int row = 0; row < n_rows; row++) {
            const Words* words = reinterpret_cast<const Words*>(data + row * kDigestRow);
            const Words* keys = reinterpret_cast<const Words*>(kDigestKeys.at[row]);
            for (int i = 0; i < kWordsInRow; i++) {
                even[i] += lower_product(words[i], keys[i]);
                odd[i] += lower_product(words[i] >> 32, keys[i] >> 32);
            }
        }
        for (int i = 0; i < kWordsInRow; i++) even[i] = mixed(even[i]), odd[i] = mixed(odd[i]);
    }
};

// One number for several, in their order.
inline uint64_t folded(const uint64_t* parts, size_t n, uint64_t start) {
    uint64_t total = mixed(start + 1);
    for (size_t i = 0; i < n; i++) total = mixed(total ^ parts[i]);
    return total;
}

inline uint64_t digest(const char* data, size_t size) {
    DigestColumns columns;
    size_t done = 0;
    for (; done + kDigestBlock <= size; done += kDigestBlock) columns.add(data + done, kDigestRows);
    for (; done + kDigestRow <= size; done += kDigestRow) columns.add(data + done, 1);
    if (done < size) {
        alignas(64) char rest[kDigestRow] = {};
        std::memcpy(rest, data + done, size - done);
        columns.add(rest, 1);
    }
    uint64_t parts[kDigestColumns];
    std::memcpy(parts, &columns, sizeof parts);
    return folded(parts, kDigestColumns, size);
}

// Digests of `n` blocks of memory.
inline void digests(const void* const* data, const size_t* sizes, int n, uint64_t* out, int n_threads) {
    std::vector<size_t> first(n + 1);  // first task of each block
    for (int i = 0; i < n; i++) first[i + 1] = first[i] + (sizes[i] + kDigestPiece - 1) / kDigestPiece;
    std::vector<uint64_t> pieces(first[n]);
    parallel_region(n_threads, 1, [&](Worker& worker, int) {
        worker.parallel_for(int(pieces.size()), [&](int task) {
            const size_t i = std::upper_bound(first.begin(), first.end(), size_t(task)) - first.begin() - 1;
            const size_t start = (task - first[i]) * kDigestPiece;
            pieces[task] = digest(static_cast<const char*>(data[i]) + start, std::min(sizes[i] - start, kDigestPiece));
        });
    });
    for (int i = 0; i < n; i++) out[i] = folded(pieces.data() + first[i], first[i + 1] - first[i], sizes[i]);
}

}  // namespace sotto

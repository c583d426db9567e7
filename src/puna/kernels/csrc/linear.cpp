// y = x w^T for few tokens: the weights stream past once, at the memory's speed.
//
// Threads share the rows of w. For one token they are read one after another, as they lie, or two at a time where a row
// alone is slower to multiply than to read. Else a tile is four rows against up to eight tokens, whose sums stay in
// registers while the rows go by; for more tokens the same rows, now in the cache, go by again. Whatever the tile, a
// float sum is taken in the same order: a token gets the same numbers whatever runs beside it.
#include "api.h"
#include "dots.h"
#include "dots_int4.h"

namespace puna {
namespace {

constexpr int64_t kPrepareAlone = 32 * 1024;  // elements of x that one thread prepares sooner than two

thread_local Scratch x_scratch, scale_scratch, sum_scratch, row_scratch, woven_scratch, woven_scale_scratch;

PUNA_INLINE void put(const Job& job, int64_t row, int64_t token, float value) {
    if (job.row_scale != nullptr) value *= job.row_scale[row];
    if (job.y_bf16) {
        static_cast<uint16_t*>(job.y)[token * job.N + row] = float_to_bf16(value);
    } else {
        static_cast<float*>(job.y)[token * job.N + row] = value;
    }
}

template <class F>
PUNA_INLINE void put_sum(const Job& job, int64_t row, int64_t token, typename F::Acc acc) {
    const float scale = F::kTokenScale || job.x_scale == nullptr ? 1.0f : job.x_scale[token];
    put(job, row, token, F::sum(acc, job.x_sum == nullptr ? 0 : job.x_sum[token]) * scale);
}

// Tokens of one tile, woven: block b of all T, then block b + 1 of all. So a tile reads x from one place in order, and
// rows of x a power of two apart do not push each other out of the cache.
struct Tokens {
    const uint8_t* x;
    const float* scale;  // woven likewise, a float a block; null without
    int64_t first;       // the token that the tile starts with
    int count;           // how many there are; up to T they are zero
};

// The product of up to R rows with up to T tokens. Where there are fewer rows, the last is computed again and not stored.
//
// Memory is read by prefetching alone, in order: while these rows are multiplied, the bytes of the next R are fetched
// into the second cache, as one stream. Reading R rows side by side would be R streams, which memory likes much less.
// One token leaves no time to come from the second cache: the next R rows go on to the first one, and those after them
// into the second.
template <class F, int R, int T>
void tile(const Job& job, int64_t row, int rows, const Tokens& tokens) {
    constexpr int kUnroll = F::kBytes >= 64 ? 1 : 64 / F::kBytes;
    constexpr int kLines = R * kUnroll * F::kBytes / 64;
    const uint8_t *w[R], *s[R], *ahead = job.weight + (row + R) * job.row_bytes;
    typename F::Acc acc[R][T];
    for (int r = 0; r < R; ++r) {
        const int64_t at = row + (r < rows ? r : rows - 1);
        w[r] = job.weight + at * job.row_bytes;
        s[r] = F::scales(job, at);
        for (int t = 0; t < T; ++t) acc[r][t] = F::zero();
    }
    const auto step = [&](const uint8_t* const* from, int64_t offset, int64_t b, bool tail) __attribute__((always_inline)) {
        typename F::Weights weights[R];
        float kept[R][4];
        for (int r = 0; r < R; ++r) {
            weights[r] = F::load({from[r] + offset, F::scale_at(job, s[r], b * F::kBlock, tail, kept[r])});
        }
        const uint8_t* x = tokens.x + b * T * F::kStep;
        for (int t = 0; t < T; ++t) {
            const float scale = F::kTokenScale ? tokens.scale[b * T + t] : 0.0f;
            for (int r = 0; r < R; ++r) acc[r][t] = F::dot(acc[r][t], weights[r], x + t * F::kStep, scale);
        }
    };
    const int64_t blocks = job.K / F::kBlock;
    int64_t b = 0;
    for (; b + kUnroll <= blocks; b += kUnroll) {
        for (int line = 0; line < kLines; ++line) {
            const uint8_t* next = ahead + R * b * F::kBytes + 64 * line;
            if constexpr (T == 1) prefetch(next);
            prefetch_far(T == 1 ? next + R * job.row_bytes : next);
        }
        for (int u = 0; u < kUnroll; ++u) step(w, (b + u) * F::kBytes, b + u, false);
    }
    for (; b < blocks; ++b) step(w, b * F::kBytes, b, false);
    if (b * F::kBlock < job.K) {
        alignas(64) uint8_t tails[R][F::kBytes] = {};
        const uint8_t* from[R];
        for (int r = 0; r < R; ++r) {
            std::memcpy(tails[r], w[r] + b * F::kBytes, size_t(job.row_bytes - b * F::kBytes));
            from[r] = tails[r];
        }
        step(from, 0, b, true);
    }
    for (int t = 0; t < tokens.count; ++t) {
        for (int r = 0; r < rows; ++r) put_sum<F>(job, row + r, tokens.first + t, acc[r][t]);
    }
}

// The product of one row with one token. Read in the order in which it lies and by nothing but loads, memory is fastest:
// its own prefetching sees one stream.
template <class F>
void stream(const Job& job, int64_t row, const Tokens& tokens) {
    constexpr int kSums = F::kStreams;
    const uint8_t *w = job.weight + row * job.row_bytes, *s = F::scales(job, row);
    typename F::Acc acc[kSums];
    for (int i = 0; i < kSums; ++i) acc[i] = F::zero();
    const auto step = [&](typename F::Acc sum, const uint8_t* from, int64_t b, bool tail) __attribute__((always_inline)) {
        float kept[4];
        const typename F::Weights weights = F::load({from, F::scale_at(job, s, b * F::kBlock, tail, kept)});
        return F::dot(sum, weights, tokens.x + b * F::kStep, F::kTokenScale ? tokens.scale[b] : 0.0f);
    };
    const int64_t blocks = job.K / F::kBlock;
    int64_t b = 0;
    for (; b + kSums <= blocks; b += kSums) {
        for (int i = 0; i < kSums; ++i) acc[i] = step(acc[i], w + (b + i) * F::kBytes, b + i, false);
    }
    for (; b < blocks; ++b) acc[0] = step(acc[0], w + b * F::kBytes, b, false);
    if (b * F::kBlock < job.K) {
        alignas(64) uint8_t tail[F::kBytes] = {};
        std::memcpy(tail, w + b * F::kBytes, size_t(job.row_bytes - b * F::kBytes));
        acc[0] = step(acc[0], tail, b, true);
    }
    for (int i = 1; i < kSums; ++i) acc[0] = F::add(acc[0], acc[i]);
    put_sum<F>(job, row, tokens.first, acc[0]);
}

// Rows a tile takes at once, so that x is read that much less often; registers are the limit, and for one token the
// first cache, which holds those being read and the next.
template <int T>
#if defined(PUNA_AVX512) || defined(PUNA_NEON)
constexpr int kRows = T == 1 ? 2 : 4;
#else
constexpr int kRows = T == 2 ? 4 : 2;
#endif

template <class F, int T>
void rows_by_tokens(const Job& job, int64_t first, int64_t last, const Tokens& tokens) {
    if constexpr (T == 1 && F::kStreams > 0) {
        for (int64_t row = first; row < last; ++row) stream<F>(job, row, tokens);
        return;
    }
    constexpr int R = kRows<T>;
    for (int64_t row = first; row < last; row += R) {
        tile<F, R, T>(job, row, int(std::min<int64_t>(R, last - row)), tokens);
    }
}

// How many of the remaining tokens the next tile takes.
template <class F>
int tile_of(int64_t tokens) {
    return tokens >= F::kTile ? F::kTile : tokens >= 3 ? 4 : int(tokens);
}

// Weaves the prepared tokens tile by tile; the last tile may be filled up with zeros.
template <class F>
void weave(Job& job) {
    if (job.M == 1) return;
    const int64_t blocks = (job.K + F::kBlock - 1) / F::kBlock, row = blocks * F::kStep;
    uint8_t* out = woven_scratch.take<uint8_t>((job.M + 1) * row);
    float* scale = F::kTokenScale ? woven_scale_scratch.take<float>((job.M + 1) * blocks) : nullptr;
    for (int64_t first = 0, T; first < job.M; first += T) {
        T = tile_of<F>(job.M - first);
        for (int64_t t = 0; t < T; ++t) {
            const bool there = first + t < job.M;
            for (int64_t b = 0; b < blocks; ++b) {
                uint8_t* to = out + first * row + (b * T + t) * F::kStep;
                if (there) {
                    std::memcpy(to, job.x + (first + t) * job.x_stride + b * F::kStep, F::kStep);
                } else {
                    std::memset(to, 0, F::kStep);
                }
                if (F::kTokenScale) scale[first * blocks + b * T + t] = there ? job.x_scale[(first + t) * blocks + b] : 0;
            }
        }
    }
    job.x = out;
    job.x_stride = row;
    if (F::kTokenScale) job.x_scale = scale;
}

template <class F>
void multiply(Job& job) {
    weave<F>(job);
    const int64_t blocks = (job.K + F::kBlock - 1) / F::kBlock;
    // Pieces share out evenly, and stay in a core's cache while the tokens go by.
    const int64_t some = std::max<int64_t>(1, (job.M <= F::kTile ? 131072 : 65536) / std::max<int64_t>(job.row_bytes, 1));
    const int64_t even = std::max<int64_t>(1, job.N / (4 * job.threads));
    const int64_t piece = (std::min(some, even) + 3) / 4 * 4;
    share(job.threads, job.N, piece, [&](int64_t begin, int64_t end) {
        for (int64_t first = begin; first < end; first += piece) {
            const int64_t last = std::min(first + piece, end);
            for (int64_t token = 0, T; token < job.M; token += T) {
                T = tile_of<F>(job.M - token);
                const float* scale = F::kTokenScale ? job.x_scale + token * blocks : nullptr;
                const Tokens tokens{job.x + token * job.x_stride, scale, token, int(std::min(T, job.M - token))};
                if (T == F::kTile) rows_by_tokens<F, F::kTile>(job, first, last, tokens);
                else if (T == 4) rows_by_tokens<F, 4>(job, first, last, tokens);
                else if (T == 2) rows_by_tokens<F, 2>(job, first, last, tokens);
                else rows_by_tokens<F, 1>(job, first, last, tokens);
            }
        }
    });
}

// Tokens --------------------------------------------------------------------------------------------------------------

// Calls prepare(m, floats of row m) for each token.
template <class Prepare>
void each_token(const Source& x, int64_t threads, const Prepare& prepare) {
    const bool alone = x.M * x.K <= kPrepareAlone;
    share(alone ? 1 : threads, x.M, 1, [&](int64_t first, int64_t last) {
        float* row = row_scratch.take<float>(padded(x.K));
        for (int64_t m = first; m < last; ++m) {
            widen_row(x, m, row);
            prepare(m, row);
        }
    });
}

void use_floats(Job& job, const Source& x) {
    float* out = x_scratch.take<float>(x.M * padded(x.K));
    for (int64_t m = 0; m < x.M; ++m) widen_row(x, m, out + m * padded(x.K));
    job.x = reinterpret_cast<const uint8_t*>(out);
    job.x_stride = 4 * padded(x.K);
}

void use_fp8_floats(Job& job, const Source& x, float cap) {
    use_floats(job, x);
    float* scale = scale_scratch.take<float>(x.M);
    float* rows = reinterpret_cast<float*>(const_cast<uint8_t*>(job.x));
    for (int64_t m = 0; m < x.M; ++m) scale[m] = quantize_fp8(rows + m * padded(x.K), padded(x.K), cap);
    job.x_scale = scale;
}

#if defined(PUNA_BF16_DOT)
void use_bf16(Job& job, const Source& x) {
    const int64_t row_bytes = 2 * x.K, stride = 2 * padded(x.K);
    uint8_t* out = x_scratch.take<uint8_t>(x.M * stride);
    for (int64_t m = 0; m < x.M; ++m) {
        std::memcpy(out + m * stride, static_cast<const uint8_t*>(x.data) + m * row_bytes, size_t(row_bytes));
        std::memset(out + m * stride + row_bytes, 0, size_t(stride - row_bytes));
    }
    job.x = out;
    job.x_stride = stride;
}
#endif

#if defined(PUNA_FP8_DOT)
// bf16 tokens in the order of fp8 weights; quantised ones too, because every E4M3 value is a bf16.
void use_fp8_order(Job& job, const Source& x, bool quantize, float cap) {
    const int64_t width = padded(x.K);
    uint16_t* out = x_scratch.take<uint16_t>(x.M * width);
    float* scale = scale_scratch.take<float>(x.M);
    each_token(x, job.threads, [&](int64_t m, float* row) {
        if (quantize) scale[m] = quantize_fp8(row, width, cap);
        for (int64_t k = 0; k < width; k += 8) {
            for (int64_t i = 0; i < 8; ++i) out[m * width + fp8_order(k) + i] = float_to_bf16(row[k + i]);
        }
    });
    job.x = reinterpret_cast<const uint8_t*>(out);
    job.x_stride = 2 * width;
    job.x_scale = quantize ? scale : nullptr;
}
#endif

void use_int8(Job& job, const Source& x) {
    const int64_t width = padded(x.K);
    int8_t* out = x_scratch.take<int8_t>(x.M * width);
    float* scale = scale_scratch.take<float>(x.M);
    int32_t* sums = sum_scratch.take<int32_t>(x.M);
    each_token(x, job.threads, [&](int64_t m, float* row) {
        scale[m] = quantize_int8(row, width, out + m * width);
        int32_t sum = 0;
        for (int64_t k = 0; k < width; ++k) sum += out[m * width + k];
        sums[m] = sum;
    });
    job.x = reinterpret_cast<const uint8_t*>(out);
    job.x_stride = width;
    job.x_scale = scale;
    job.x_sum = sums;
}

void use_int4_blocks(Job& job, const Source& x) {
    const int64_t blocks = padded(x.K) / 128;
    Int4Block* out = x_scratch.take<Int4Block>(x.M * blocks);
    float* scale = scale_scratch.take<float>(x.M * blocks);
    each_token(x, job.threads,
               [&](int64_t m, float* row) { quantize_blocks(row, x.K, out + m * blocks, scale + m * blocks); });
    job.x = reinterpret_cast<const uint8_t*>(out);
    job.x_stride = blocks * int64_t(sizeof(Int4Block));
    job.x_scale = scale;
}

template <Groups G>
void multiply_int4(Job& job, bool scale_bf16) {
    if (scale_bf16) {
        multiply<Int4Dot<G, true>>(job);
    } else {
        multiply<Int4Dot<G, false>>(job);
    }
}

Job make_job(const Source& x, const void* weight, int64_t row_bytes, void* y, int64_t N, int64_t threads) {
    Job job{};
    job.weight = static_cast<const uint8_t*>(weight);
    job.row_bytes = row_bytes;
    job.y = y;
    job.y_bf16 = x.bf16;
    job.M = x.M;
    job.N = N;
    job.K = x.K;
    job.threads = std::max<int64_t>(threads, 1);
    return job;
}

}  // namespace
}  // namespace puna

using namespace puna;

// x (M, K) and y (M, N) share a dtype, bfloat16 or float32; all arrays are row-major without gaps.
extern "C" {

void puna_bf16_linear(const void* x, int x_bf16, const void* weight, void* y, int64_t M, int64_t N, int64_t K,
                      int64_t threads) {
    const Source source{x, x_bf16 != 0, M, K};
    Job job = make_job(source, weight, 2 * K, y, N, threads);
#if defined(PUNA_BF16_DOT)
    if (source.bf16) {
        use_bf16(job, source);
        multiply<Bf16Dot>(job);
        return;
    }
#endif
    use_floats(job, source);
    multiply<FloatDot<DecodeBf16>>(job);
}

void puna_int8_linear(const void* x, int x_bf16, const void* weight, const float* scale, int quantize, void* y,
                      int64_t M, int64_t N, int64_t K, int64_t threads) {
    const Source source{x, x_bf16 != 0, M, K};
    Job job = make_job(source, weight, K, y, N, threads);
    job.row_scale = scale;
    if (quantize) {
        use_int8(job, source);
        multiply<Int8Dot>(job);
        return;
    }
#if defined(PUNA_FP8_DOT)
    if (source.bf16) {
        use_fp8_order(job, source, false, 0.0f);
        multiply<Int8Bf16Dot>(job);
        return;
    }
#endif
    use_floats(job, source);
    multiply<FloatDot<DecodeInt8>>(job);
}

// `blocked`: scale is (ceil(N/128), ceil(K/128)); else (N,).
void puna_fp8_linear(const void* x, int x_bf16, const void* weight, const float* scale, int blocked, int quantize,
                     float cap, void* y, int64_t M, int64_t N, int64_t K, int64_t threads) {
    const Source source{x, x_bf16 != 0, M, K};
    Job job = make_job(source, weight, K, y, N, threads);
    if (blocked) {
        job.group_scale = reinterpret_cast<const uint8_t*>(scale);
        job.group_row_bytes = (K + 127) / 128 * 4;
    } else {
        job.row_scale = scale;
    }
#if defined(PUNA_FP8_DOT)
    if (source.bf16 || quantize) {
        use_fp8_order(job, source, quantize != 0, cap);
        blocked ? multiply<Fp8BlockDot>(job) : multiply<Fp8Dot>(job);
        return;
    }
#endif
    if (quantize) {
        use_fp8_floats(job, source, cap);
    } else {
        use_floats(job, source);
    }
    blocked ? multiply<Fp8BlockFloat>(job) : multiply<FloatDot<DecodeFp8>>(job);
}

// K is a multiple of `group`, and `group` of 32; scale is (N, K/group), float32 or bfloat16.
void puna_int4_linear(const void* x, int x_bf16, const void* packed, const void* scale, int scale_bf16, int64_t group,
                      void* y, int64_t M, int64_t N, int64_t K, int64_t threads) {
    const Source source{x, x_bf16 != 0, M, K};
    Job job = make_job(source, packed, K / 2, y, N, threads);
    job.group_scale = static_cast<const uint8_t*>(scale);
    job.group_size = group;
    job.group_row_bytes = K / group * (scale_bf16 ? 2 : 4);
    use_int4_blocks(job, source);
    if (group == 32) {
        multiply_int4<Groups::k32>(job, scale_bf16 != 0);
    } else if (group % 128 == 0) {
        multiply_int4<Groups::kWhole>(job, scale_bf16 != 0);
    } else {
        job.scale_bf16 = scale_bf16 != 0;
        multiply<Int4Dot<Groups::kAny, false>>(job);
    }
}

}  // extern "C"

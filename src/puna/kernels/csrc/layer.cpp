// A whole decoder layer for the few tokens of a decoding step: one call instead of some thirty, whose cost in Python is
// a quarter of a small model's step. It only puts the other kernels in order, with the roundings in between that the
// unfused model has; what it adds is the store into the cache and the residual.
#include "activations.h"
#include "api.h"
#include "simd.h"

namespace puna {
namespace {

enum Format { kBf16, kInt8, kFp8, kFp8Blocks, kInt4 };
enum CacheKind { kFloat32, kBfloat16, kFloat16, kCodes, kE4M3 };

// A stored matrix (N, K), as linear.cpp takes it. Python's layer.py has the same fields.
struct Matrix {
    int32_t format, quantize, scale_bf16;
    float cap;
    int64_t group, N;
    const void *weight, *scale;
};

struct Layer {
    Matrix q, k, v, o, gate, up, down;
    const void *norm, *mlp_norm;  // (D,) of the activations' dtype
    float eps;
    int32_t bf16;
    int64_t D, H, G, K;
};

// The cache of one layer, (P, G, S, K); strides in elements from page to page.
struct Pages {
    void *keys, *values;
    float *key_scale, *value_scale;  // (P, G, S), or null
    int32_t kind, unused;
    int64_t key_page, value_page, key_scale_page, value_scale_page, P, S;
};

// What all layers share: M tokens with their angles, where they go, and what they see.
struct Step {
    int64_t M, B, threads;
    const float *cosine, *sine;  // (M, K/2)
    const int64_t* slots;        // (M,): page * S + place
    const int32_t* table;        // (M, B)
    const int64_t* lengths;      // (M,)
};

thread_local Scratch normal_scratch, q_scratch, k_scratch, v_scratch, wide_scratch, up_scratch, row_scratch;

void product(const Matrix& w, const void* x, int bf16, void* y, int64_t M, int64_t K, int64_t threads) {
    const auto* scale = static_cast<const float*>(w.scale);
    switch (w.format) {
        case kBf16:
            return puna_bf16_linear(x, bf16, w.weight, y, M, w.N, K, threads);
        case kInt8:
            return puna_int8_linear(x, bf16, w.weight, scale, w.quantize, y, M, w.N, K, threads);
        case kFp8:
        case kFp8Blocks:
            return puna_fp8_linear(x, bf16, w.weight, scale, w.format == kFp8Blocks, w.quantize, w.cap, y, M, w.N, K,
                                   threads);
        case kInt4:
            return puna_int4_linear(x, bf16, w.weight, w.scale, w.scale_bf16, w.group, y, M, w.N, K, threads);
    }
}

uint8_t e4m3_code(float value) {  // of a value that is one
    const uint32_t u = bits<uint32_t>(value), sign = u >> 24 & 0x80u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7f;  // NaN
    if (magnitude < 0x3c800000u) return uint8_t(sign | uint32_t(bits<float>(magnitude) * 512.0f));
    return uint8_t(sign | ((magnitude >> 20) - (120u << 3)));
}

// Rows x (M, G, K) go to their slots, in the cache's kind, with a scale for each token and head where it has them.
void store(const Pages& pages, const Layer& layer, const Step& step, const void* x, void* data, int64_t page_stride,
           float* scales, int64_t scale_stride) {
    const int64_t G = layer.G, K = layer.K, S = pages.S;
    float* row = row_scratch.take<float>(padded(K));
    const Source source{x, layer.bf16 != 0, step.M * G, K};
    for (int64_t i = 0; i < step.M * G; ++i) {
        const int64_t slot = step.slots[i / G], g = i % G, page = slot / S, place = g * S + slot % S;
        const int64_t at = page * page_stride + place * K;
        if (pages.kind == (layer.bf16 ? kBfloat16 : kFloat32)) {
            const int64_t bytes = (layer.bf16 ? 2 : 4) * K;
            std::memcpy(static_cast<uint8_t*>(data) + (layer.bf16 ? 2 : 4) * at,
                        static_cast<const uint8_t*>(x) + i * bytes, size_t(bytes));
            continue;
        }
        widen_row(source, i, row);
        if (pages.kind == kCodes) {
            scales[page * scale_stride + place] = quantize_int8(row, K, static_cast<int8_t*>(data) + at);
        } else {
            scales[page * scale_stride + place] = quantize_fp8(row, K, INFINITY);
            for (int64_t k = 0; k < K; ++k) static_cast<uint8_t*>(data)[at + k] = e4m3_code(row[k]);
        }
    }
}

void add(void* x, const void* more, int bf16, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        if (bf16) {
            auto* to = static_cast<uint16_t*>(x);
            to[i] = float_to_bf16(bf16_to_float(to[i]) + bf16_to_float(static_cast<const uint16_t*>(more)[i]));
        } else {
            static_cast<float*>(x)[i] += static_cast<const float*>(more)[i];
        }
    }
}

}  // namespace
}  // namespace puna

using namespace puna;

extern "C" {

// x (M, D), bfloat16 or float32, goes through the layer in place. Returns 0; or what points outside the cache, x being as
// it was: 1 for a slot, and else the fault of decode_attention.
int64_t puna_decode_layer(const void* layer_, const void* pages_, const void* step_, void* x) {
    const auto& layer = *static_cast<const Layer*>(layer_);
    const auto& pages = *static_cast<const Pages*>(pages_);
    const auto& step = *static_cast<const Step*>(step_);
    const int bf16 = layer.bf16;
    const int64_t M = step.M, D = layer.D, H = layer.H, G = layer.G, K = layer.K, threads = step.threads;
    const int64_t I = layer.gate.N, size = bf16 ? 2 : 4;
    for (int64_t m = 0; m < M; ++m) {
        if (step.slots[m] < 0 || step.slots[m] >= pages.P * pages.S) return 1;
    }
    auto* normal = normal_scratch.take<uint8_t>(size * M * D);
    auto* q = q_scratch.take<uint8_t>(size * M * H * K);
    auto* k = k_scratch.take<uint8_t>(size * M * G * K);
    auto* v = v_scratch.take<uint8_t>(size * M * G * K);
    auto* wide = wide_scratch.take<uint8_t>(size * M * std::max(I, H * K));
    auto* up = up_scratch.take<uint8_t>(size * M * std::max(I, D));

    puna_rms_norm(x, layer.norm, layer.eps, normal, bf16, M, D, threads);
    product(layer.q, normal, bf16, q, M, D, threads);
    product(layer.k, normal, bf16, k, M, D, threads);
    product(layer.v, normal, bf16, v, M, D, threads);
    puna_rotate(q, step.cosine, step.sine, q, bf16, M, H, K, threads);
    puna_rotate(k, step.cosine, step.sine, k, bf16, M, G, K, threads);
    store(pages, layer, step, k, pages.keys, pages.key_page, pages.key_scale, pages.key_scale_page);
    store(pages, layer, step, v, pages.values, pages.value_page, pages.value_scale, pages.value_scale_page);
    const int64_t fault = puna_decode_attention(
        q, bf16, pages.kind, static_cast<const uint8_t*>(pages.keys), static_cast<const uint8_t*>(pages.values),
        pages.key_scale, pages.value_scale, pages.key_page, pages.value_page, pages.key_scale_page,
        pages.value_scale_page, step.table, step.lengths, wide, M, H, G, K, pages.P, pages.S, step.B, threads);
    if (fault) return fault;
    product(layer.o, wide, bf16, normal, M, H * K, threads);
    add(x, normal, bf16, M * D);

    puna_rms_norm(x, layer.mlp_norm, layer.eps, normal, bf16, M, D, threads);
    product(layer.gate, normal, bf16, wide, M, D, threads);
    product(layer.up, normal, bf16, up, M, D, threads);
    puna_silu_mul(wide, up, wide, bf16, M * I, threads);
    product(layer.down, wide, bf16, up, M, I, threads);
    add(x, up, bf16, M * D);
    return 0;
}

}  // extern "C"

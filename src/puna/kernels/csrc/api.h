// The entry points that other files of the library call; build.py has the types of all of them.
#pragma once

#include <cstdint>

extern "C" {

void puna_bf16_linear(const void* x, int x_bf16, const void* weight, void* y, int64_t M, int64_t N, int64_t K,
                      int64_t threads);
void puna_int8_linear(const void* x, int x_bf16, const void* weight, const float* scale, int quantize, void* y,
                      int64_t M, int64_t N, int64_t K, int64_t threads);
void puna_fp8_linear(const void* x, int x_bf16, const void* weight, const float* scale, int blocked, int quantize,
                     float cap, void* y, int64_t M, int64_t N, int64_t K, int64_t threads);
void puna_int4_linear(const void* x, int x_bf16, const void* packed, const void* scale, int scale_bf16, int64_t group,
                      void* y, int64_t M, int64_t N, int64_t K, int64_t threads);
void puna_rms_norm(const void* x, const void* weight, float eps, void* out, int bf16, int64_t M, int64_t D,
                   int64_t threads);
void puna_silu_mul(const void* gate, const void* up, void* out, int bf16, int64_t count, int64_t threads);
void puna_rotate(const void* x, const float* cosine, const float* sine, void* out, int bf16, int64_t N, int64_t H,
                 int64_t K, int64_t threads);
int64_t puna_decode_attention(const void* q, int q_bf16, int kind, const uint8_t* keys, const uint8_t* values,
                              const float* key_scale, const float* value_scale, int64_t key_page, int64_t value_page,
                              int64_t key_scale_page, int64_t value_scale_page, const int32_t* table,
                              const int64_t* lengths, void* out, int64_t N, int64_t H, int64_t G, int64_t K, int64_t P,
                              int64_t S, int64_t B, int64_t threads);

}  // extern "C"

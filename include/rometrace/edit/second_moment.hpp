#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "rometrace/edit/moment_text.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/trace/trace.hpp"

namespace rometrace {

/// The second moment C of the keys of a layer's MLP over the tokens of a text: the mean of k k^T, not centred, k [F]
/// being what the MLP's last matrix reads (ROME, section 3.1).
struct SecondMoment {
  std::int64_t layer = -1;     ///< -1: not known
  at::Tensor mean;             ///< [F, F], float64, on the CPU, symmetric to the last bit
  std::int64_t tokens = 0;     ///< N, of which it is the mean
  std::int64_t texts = 0;      ///< 0: not known
  std::int64_t cut = 0;        ///< tokens of a text at most; 0: not known
  std::string text_sha256;     ///< MomentText::sha256; empty: not known
  std::string weights_sha256;  ///< of the model; empty: not known
  std::string dtype;           ///< of the products that gave the keys; empty: not known

  std::int64_t width() const { return mean.size(0); }  ///< F
  /// N / F: below 2 C is of little use, 10 are usable, 50 good.
  double tokens_by_width() const { return static_cast<double>(tokens) / static_cast<double>(width()); }
};

/// What does not change a second moment.
struct MomentControl {
  Progress progress;  ///< of what this call has to do, in rows times layers
  std::stop_token stop;
  std::function<void(std::int64_t texts)> resumed;  ///< told how many texts an earlier call has done; may be empty
  /// Bytes that a streamed model's states and keys may take between two layers; each layer is read once for as many
  /// texts as that allows.
  std::int64_t memory = std::int64_t{512} << 20;
};

/// What it takes to collect them.
struct MomentCost {
  double flops = 0;  ///< the formula's: all products of the layers up to the highest, and 2 F^2 a token and layer
  std::int64_t memory = 0;  ///< bytes that the sums take
};
MomentCost moment_cost(const DecoderConfig& config, std::int64_t tokens, std::span<const std::int64_t> layers);

/// Seconds that second_moments() may take of these texts, which it measures: the first layer, of the first texts, and
/// one product of their keys.
double moment_seconds(const Decoder& model, const MomentText& text, std::span<const std::int64_t> layers);

/// C of each of `layers` (distinct), in their order, in one pass over the text that goes no higher than the highest.
/// Products take about 1000 rows, of many texts; their sums are float32 (float64 where the model is), what is summed of
/// them is float64. The same text gives the same bits, whether layers are streamed or not, and other threads the same
/// within rounding. `text.cut` and the ids are to be within what the model takes. Leaves `weights_sha256` empty. Throws
/// Error (a layer that the model does not have, keys that are not finite), Interrupted.
std::vector<SecondMoment> second_moments(const Decoder& model, const MomentText& text,
                                         std::span<const std::int64_t> layers, const MomentControl& control = {});

/// The model whose moments are kept, and where.
struct MomentCache {
  std::filesystem::path folder;  ///< empty: none is kept
  std::string weights_sha256;    ///< of the model's files, as they are
};

/// The name of a moment's file in that folder. It depends on the model's weights, the layer, the texts and their
/// tokens, the cut, and the products' dtype.
std::filesystem::path moment_cache_file(const MomentCache& cache, const Decoder& model, const MomentText& text,
                                        std::int64_t layer);

/// Whether that file is there. (It is read, and made anew if it is damaged, by cached_second_moments.)
bool moment_is_cached(const MomentCache& cache, const Decoder& model, const MomentText& text, std::int64_t layer);

/// Gives each layer's C to `take`, in ascending order of layers, one at a time in memory: what second_moments() gives,
/// from the cache where it is there, and then kept there. While they are collected the sums are written to the cache
/// again and again, and when `stop` is requested, so that the next call with the same arguments goes on behind the last
/// texts that were done, to the same bits. What the cache cannot take is no error. Throws as second_moments() does.
void cached_second_moments(const Decoder& model, const MomentText& text, std::span<const std::int64_t> layers,
                           const MomentCache& cache, const MomentControl& control,
                           const std::function<void(SecondMoment)>& take);

/// The same, all in memory (F^2 doubles each).
std::vector<SecondMoment> cached_second_moments(const Decoder& model, const MomentText& text,
                                                std::span<const std::int64_t> layers, const MomentCache& cache,
                                                const MomentControl& control = {});

}  // namespace rometrace

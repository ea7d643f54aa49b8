#include "rometrace/trace/embedding_moments.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <system_error>
#include <unordered_map>
#include <vector>

#include "model/safetensors_writer.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/digest.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

// Distinct tokens whose embeddings are held at once.
constexpr std::size_t kBlock = 1024;

/// The distinct tokens of a text, ascending, and how often each stands there.
struct TokenCounts {
  explicit TokenCounts(std::span<const std::int32_t> token_ids) : total(static_cast<std::int64_t>(token_ids.size())) {
    std::unordered_map<std::int32_t, std::int64_t> count_of;
    for (const auto id : token_ids) ++count_of[id];
    for (const auto& [id, count] : count_of) ids.push_back(id);
    std::sort(ids.begin(), ids.end());
    for (const auto id : ids) counts.push_back(count_of.at(id));
  }

  std::vector<std::int32_t> ids;
  std::vector<std::int64_t> counts;
  std::int64_t total;
};

/// Calls `use` with the embeddings [B, D] of each block of distinct tokens, on the CPU in the model's dtype, and their
/// counts [B], int64.
template <typename Use>
void for_each_block(const Decoder& model, TokenCounts& text, Use&& use) {
  for (std::size_t begin = 0; begin < text.ids.size(); begin += kBlock) {
    const auto size = std::min(kBlock, text.ids.size() - begin);
    use(model.embed(std::span(text.ids).subspan(begin, size)).cpu().contiguous(),
        at::from_blob(text.counts.data() + begin, {static_cast<std::int64_t>(size)}, at::kLong));
  }
}

at::Tensor mean_of(const Decoder& model, TokenCounts& text) {
  auto sum = at::zeros({model.config().embedding_width}, at::kDouble);
  for_each_block(model, text, [&](const at::Tensor& rows, const at::Tensor& counts) {
    sum += at::matmul(counts.to(at::kDouble), rows.to(at::kDouble));
  });
  return sum / text.total;
}

at::Tensor covariance_of(const Decoder& model, TokenCounts& text, const at::Tensor& mean) {
  const auto D = model.config().embedding_width;
  auto sum = at::zeros({D, D}, at::kDouble);
  for_each_block(model, text, [&](const at::Tensor& rows, const at::Tensor& counts) {
    const auto weighted = (rows.to(at::kDouble) - mean) * counts.to(at::kDouble).sqrt().unsqueeze(1);
    sum += at::matmul(weighted.t(), weighted);
  });
  return sum / (text.total - 1);
}

at::Tensor symmetric_root(const at::Tensor& matrix) {
  const auto [values, vectors] = at::linalg_eigh(matrix);
  // Of a text with fewer tokens than the width, most eigenvalues are rounding; a root of them would be noise of its
  // own.
  const auto rounding = static_cast<double>(values.size(0)) * std::numeric_limits<double>::epsilon() * values.max();
  const auto known = at::where(values > rounding, values, at::zeros_like(values));
  const auto root = at::matmul(vectors * known.sqrt(), vectors.t());
  return (root + root.t()) / 2;
}

void check_enough(const TokenCounts& text, std::int64_t least) {
  if (text.total >= least) return;
  throw Error("the text has " + std::to_string(text.total) + (text.total == 1 ? " token" : " tokens") +
              "; expected at least " + std::to_string(least) + ", to take the " +
              (least > 1 ? "mean and covariance" : "mean") + " of their embeddings");
}

EmbeddingMoments moments_of(const Decoder& model, TokenCounts& text) {
  check_enough(text, 2);
  EmbeddingMoments moments;
  moments.tokens = text.total;
  moments.mean = mean_of(model, text);
  const auto covariance = covariance_of(model, text, moments.mean);
  if (!at::isfinite(covariance).all().item<bool>()) {
    throw Error("the embeddings of the text's tokens have no finite covariance; are the model's weights sound?");
  }
  moments.root = symmetric_root(covariance);
  return moments;
}

// ---- The cache ----

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

/// What the moments depend on.
std::string key_of(const Decoder& model, TokenCounts& text) {
  Sha256 hash;
  const std::string head =
      "rometrace embedding moments, version 1, width " + std::to_string(model.config().embedding_width) + '\n';
  hash.update(std::as_bytes(std::span(head)));
  hash.update(std::as_bytes(std::span(text.ids)));
  hash.update(std::as_bytes(std::span(text.counts)));
  for_each_block(model, text, [&](const at::Tensor& rows, const at::Tensor&) {
    const std::string dtype = c10::toString(rows.scalar_type());
    hash.update(std::as_bytes(std::span(dtype)));
    hash.update(bytes_of(rows));
  });
  return hash.hex_digest();
}

/// What tells whether a file of the cache is whole, and the one that its name promises.
std::string digest_of(const std::string& key, std::span<const std::byte> mean, std::span<const std::byte> root) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(key)));
  hash.update(mean);
  hash.update(root);
  return hash.hex_digest();
}

std::optional<EmbeddingMoments> read_cache(const fs::path& path, const std::string& key, std::int64_t D) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return std::nullopt;
  try {
    const auto file = SafetensorsFile::open(path);
    const auto find = [&](const char* name, const char* dtype, const std::vector<std::int64_t>& shape) {
      for (const auto& tensor : file.tensors()) {
        if (tensor.name == name && tensor.dtype == dtype && tensor.shape == shape) return tensor.bytes;
      }
      throw Error("not there");
    };
    const auto mean = find("mean", "F64", {D}), root = find("root", "F64", {D, D});
    const auto found = find("sha256", "U8", {64});
    const auto expected = digest_of(key, mean, root);
    if (std::memcmp(found.data(), expected.data(), expected.size()) != 0) return std::nullopt;
    EmbeddingMoments moments{at::empty({D}, at::kDouble), at::empty({D, D}, at::kDouble)};
    std::memcpy(moments.mean.mutable_data_ptr(), mean.data(), mean.size());
    std::memcpy(moments.root.mutable_data_ptr(), root.data(), root.size());
    return moments;
  } catch (const Error&) {
    return std::nullopt;
  }
}

void write_cache(const fs::path& path, const std::string& key, const EmbeddingMoments& moments) {
  const auto mean = moments.mean.contiguous(), root = moments.root.contiguous();
  const auto digest = digest_of(key, bytes_of(mean), bytes_of(root));
  const std::vector<TensorView> tensors = {
      {"mean", "F64", mean.sizes().vec(), bytes_of(mean)},
      {"root", "F64", root.sizes().vec(), bytes_of(root)},
      {"sha256", "U8", {static_cast<std::int64_t>(digest.size())}, std::as_bytes(std::span(digest))}};
  std::error_code ignored;
  fs::create_directories(path.parent_path(), ignored);
  try {
    write_safetensors(path, tensors);
  } catch (const Error&) {  // a cache is a convenience
  }
}

}  // namespace

EmbeddingMoments embedding_moments(const Decoder& model, std::span<const std::int32_t> token_ids) {
  const at::NoGradGuard no_grad;
  TokenCounts text(token_ids);
  return moments_of(model, text);
}

EmbeddingMoments mean_embedding(const Decoder& model, std::span<const std::int32_t> token_ids) {
  const at::NoGradGuard no_grad;
  TokenCounts text(token_ids);
  check_enough(text, 1);
  return {mean_of(model, text), {}, text.total};
}

EmbeddingMoments cached_embedding_moments(const Decoder& model, std::span<const std::int32_t> token_ids,
                                          const fs::path& cache_dir) {
  const at::NoGradGuard no_grad;
  TokenCounts text(token_ids);
  if (cache_dir.empty()) return moments_of(model, text);
  const auto key = key_of(model, text);
  const auto path = cache_dir / ("moments-" + key + ".safetensors");
  if (auto known = read_cache(path, key, model.config().embedding_width)) {
    known->tokens = text.total;
    return *known;
  }
  auto moments = moments_of(model, text);
  write_cache(path, key, moments);
  return moments;
}

fs::path default_cache_dir() {
  const auto folder = [](const char* name) -> fs::path {
    const char* value = std::getenv(name);
    const fs::path path = value == nullptr ? "" : value;
    return path.is_absolute() ? path : fs::path();
  };
  if (const auto cache = folder("XDG_CACHE_HOME"); !cache.empty()) return cache / "rometrace";
  if (const auto home = folder("HOME"); !home.empty()) return home / ".cache" / "rometrace";
  return {};
}

}  // namespace rometrace

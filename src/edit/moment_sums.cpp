#include "edit/moment_sums.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <system_error>

#include "model/safetensors_writer.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/digest.hpp"

namespace rometrace {
namespace {

constexpr std::int64_t kPanel = 512;  // rows; of many panels half of all products are left out

std::span<const std::byte> sum_bytes(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

/// What tells whether a file of sums is whole.
class SumsDigest {
 public:
  SumsDigest(const std::string& key, std::int64_t done) {
    hash_.update(std::as_bytes(std::span(key)));
    hash_.update(std::as_bytes(std::span(&done, 1)));
  }
  void update(std::span<const std::byte> bytes) { hash_.update(bytes); }
  std::string hex_digest() { return hash_.hex_digest(); }

 private:
  Sha256 hash_;
};

std::string panel_name(std::size_t layer, std::size_t panel) {
  return "sums." + std::to_string(layer) + "." + std::to_string(panel);
}

}  // namespace

MomentSums::MomentSums(std::size_t layers, std::int64_t width, at::Device device) : width_(width), panels_(layers) {
  for (auto& panels : panels_) {
    for (std::int64_t begin = 0; begin < width; begin += kPanel) {
      panels.push_back(
          at::zeros({std::min(kPanel, width - begin), width - begin}, at::device(device).dtype(at::kDouble)));
    }
  }
}

std::int64_t MomentSums::bytes(std::int64_t width) {
  std::int64_t numbers = 0;
  for (std::int64_t begin = 0; begin < width; begin += kPanel) {
    numbers += std::min(kPanel, width - begin) * (width - begin);
  }
  return numbers * static_cast<std::int64_t>(sizeof(double));
}

void MomentSums::add(std::size_t layer, const at::Tensor& keys) {
  const auto rows = keys.scalar_type() == at::kDouble ? keys : keys.to(at::kFloat);
  std::int64_t begin = 0;
  for (auto& panel : panels_[layer]) {
    panel.add_(at::mm(rows.slice(1, begin, begin + kPanel).t(), rows.slice(1, begin)));
    begin += kPanel;
  }
}

at::Tensor MomentSums::take_mean(std::size_t layer, std::int64_t tokens, std::int64_t number) {
  auto mean = at::empty({width_, width_}, at::kDouble);
  std::int64_t begin = 0;
  for (auto& panel : panels_[layer]) {
    const auto end = begin + panel.size(0);
    auto part = panel.cpu().div_(static_cast<double>(tokens));
    panel = at::Tensor();
    if (!at::isfinite(part).all().item<bool>()) {
      throw Error("the keys of layer " + std::to_string(number) +
                  "'s MLP have no finite second moment over the text; are the model's weights sound?");
    }
    const auto square = part.slice(1, 0, end - begin);  // products do not give its halves the same bits
    square.copy_(square.triu() + square.triu(1).t());
    mean.slice(0, begin, end).slice(1, begin).copy_(part);
    mean.slice(0, begin).slice(1, begin, end).copy_(part.t());
    begin = end;
  }
  return mean;
}

void MomentSums::save(const std::filesystem::path& path, const std::string& key, std::int64_t done) const {
  SumsDigest digest(key, done);
  std::vector<at::Tensor> held;  // what the views are of
  std::vector<TensorView> tensors;
  for (std::size_t layer = 0; layer < panels_.size(); ++layer) {
    for (std::size_t i = 0; i < panels_[layer].size(); ++i) {
      held.push_back(panels_[layer][i].cpu().contiguous());
      const auto& panel = held.back();
      tensors.push_back({panel_name(layer, i), "F64", panel.sizes().vec(), sum_bytes(panel)});
      digest.update(tensors.back().bytes);
    }
  }
  const auto hex = digest.hex_digest();
  tensors.push_back({"done", "I64", {1}, std::as_bytes(std::span(&done, 1))});
  tensors.push_back({"sha256", "U8", {static_cast<std::int64_t>(hex.size())}, std::as_bytes(std::span(hex))});
  write_safetensors(path, tensors);
}

std::optional<std::int64_t> MomentSums::restore(const std::filesystem::path& path, const std::string& key) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return std::nullopt;
  try {
    const auto file = SafetensorsFile::open(path);
    const auto find = [&](const std::string& name, const char* dtype, const std::vector<std::int64_t>& shape) {
      for (const auto& tensor : file.tensors()) {
        if (tensor.name == name && tensor.dtype == dtype && tensor.shape == shape) return tensor.bytes;
      }
      throw Error("not there");
    };
    std::int64_t done = 0;
    std::memcpy(&done, find("done", "I64", {1}).data(), sizeof(done));
    SumsDigest digest(key, done);
    std::vector<std::vector<at::Tensor>> found = panels_;
    for (std::size_t layer = 0; layer < panels_.size(); ++layer) {
      for (std::size_t i = 0; i < panels_[layer].size(); ++i) {
        const auto& panel = panels_[layer][i];
        const auto bytes = find(panel_name(layer, i), "F64", panel.sizes().vec());
        digest.update(bytes);
        auto copy = at::empty(panel.sizes(), at::kDouble);
        std::memcpy(copy.mutable_data_ptr(), bytes.data(), bytes.size());
        found[layer][i] = copy.to(panel.device());
      }
    }
    const auto expected = digest.hex_digest();
    if (std::memcmp(find("sha256", "U8", {64}).data(), expected.data(), expected.size()) != 0) return std::nullopt;
    panels_ = std::move(found);
    return done;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace rometrace

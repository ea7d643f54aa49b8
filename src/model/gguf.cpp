#include "model/gguf.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "model/gguf_types.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/input_file.hpp"
#include "text/gguf_header.hpp"
#include "text/mapping.hpp"

namespace rometrace {
namespace {

namespace fs = std::filesystem;

/// Bytes of a tensor. Throws if they do not fit in 64 bits, or a row has no whole number of blocks.
std::uint64_t bytes_of(const GgufHeader::Tensor& tensor, const GgufType& type, const std::string& where) {
  const auto row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (row % type.numbers != 0) {
    throw Error(where + " has rows of " + std::to_string(row) + " numbers of type " + std::string(type.name) +
                "; expected a multiple of " + std::to_string(type.numbers));
  }
  std::uint64_t numbers = 1;
  for (const auto length : tensor.shape) {
    if (!__builtin_mul_overflow(numbers, static_cast<std::uint64_t>(length), &numbers)) continue;
    throw Error(where + " has shape " + shape_text(tensor.shape) + ", larger than any file");
  }
  std::uint64_t bytes = numbers / static_cast<std::uint64_t>(type.numbers);
  if (__builtin_mul_overflow(bytes, std::uint64_t{type.bytes}, &bytes)) {
    throw Error(where + " has shape " + shape_text(tensor.shape) + ", larger than any file");
  }
  return bytes;
}

void check_apart(const std::vector<TensorView>& tensors, const std::string& where) {
  std::vector<const TensorView*> sorted;
  for (const auto& tensor : tensors) sorted.push_back(&tensor);
  std::ranges::sort(sorted, {}, [](const TensorView* tensor) { return tensor->bytes.data(); });
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    const auto &before = *sorted[i - 1], &tensor = *sorted[i];
    if (before.bytes.data() + before.bytes.size() <= tensor.bytes.data()) continue;
    throw Error(where + ": tensors " + in_quotes(before.name) + " and " + in_quotes(tensor.name) +
                " share bytes; expected each to have its own");
  }
}

/// Checks what the parts say of themselves.
void check_parts(const std::vector<std::shared_ptr<const GgufFile>>& files) {
  const auto count = static_cast<std::int64_t>(files.size());
  std::int64_t tensors = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto& header = files[static_cast<std::size_t>(i)]->header();
    const auto said = header.whole_number("split.count").value_or(1);
    if (said != count && said > 1) {
      throw Error(header.where() + ": is one of " + std::to_string(said) + " parts of a model, and there are " +
                  std::to_string(count) + " by its name; expected a name that ends in -00001-of-00002.gguf, say");
    }
    if (count > 1 && (said != count || header.whole_number("split.no") != i)) {
      throw Error(header.where() + ": is not the part of the model that its name says; expected split.no " +
                  std::to_string(i) + " and split.count " + std::to_string(count) + "; get all parts again");
    }
    tensors += static_cast<std::int64_t>(header.tensors().size());
  }
  const auto& first = files.front()->header();
  if (const auto said = first.whole_number("split.tensors.count"); count > 1 && said && *said != tensors) {
    first.refuse("split.tensors.count", "found " + std::to_string(tensors) + " in all parts; get all of them again");
  }
}

}  // namespace

std::vector<TensorView> gguf_tensors(std::span<const std::byte> file, const GgufHeader& header) {
  std::vector<TensorView> tensors;
  for (const auto& tensor : header.tensors()) {
    const auto where = header.where() + ": tensor " + in_quotes(tensor.name);
    const auto* type = gguf_type(tensor.type);
    if (type == nullptr) {
      throw Error(where + " is of type " + std::to_string(tensor.type) +
                  " of ggml, which is not known here; expected " + gguf_type_names());
    }
    const auto size = bytes_of(tensor, *type, where), left = file.size() - tensor.begin;
    if (size > left) {
      throw Error(header.where() + ": cut short: tensor " + in_quotes(tensor.name) + " takes " + std::to_string(size) +
                  " bytes, and " + std::to_string(left) + " follow; get the file again");
    }
    const auto bytes = file.subspan(static_cast<std::size_t>(tensor.begin), static_cast<std::size_t>(size));
    tensors.push_back({tensor.name, std::string(type->name), tensor.shape, bytes});
  }
  check_apart(tensors, header.where());
  return tensors;
}

GgufFile GgufFile::open(const fs::path& path) {
  auto mapping = std::make_unique<const Mapping>(InputFile::open(path));
  const auto bytes = mapping->bytes();
  auto header = std::make_shared<const GgufHeader>(GgufHeader::read(bytes, mapping->label()));
  auto tensors = gguf_tensors(bytes, *header);
  GgufFile opened(path, std::move(mapping), std::move(tensors));
  opened.header_ = std::move(header);
  return opened;
}

std::vector<std::shared_ptr<const GgufFile>> GgufFile::open_all(const fs::path& path) {
  std::vector<std::shared_ptr<const GgufFile>> files;
  for (const auto& part : gguf_parts(path)) files.push_back(std::make_shared<const GgufFile>(open(part)));
  check_parts(files);
  return files;
}

}  // namespace rometrace

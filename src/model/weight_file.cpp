#include "rometrace/model/weight_file.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "text/mapping.hpp"

namespace rometrace {

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const std::int64_t length : shape) text += (text.size() > 1 ? "," : "") + std::to_string(length);
  return text + "]";
}

WeightFile::WeightFile(std::filesystem::path path, std::unique_ptr<const Mapping> mapping,
                       std::vector<TensorView> tensors)
    : path_(std::move(path)), mapping_(std::move(mapping)), tensors_(std::move(tensors)) {}
WeightFile::~WeightFile() = default;
WeightFile::WeightFile(WeightFile&&) noexcept = default;
WeightFile& WeightFile::operator=(WeightFile&&) noexcept = default;

void WeightFile::check_whole() const {
  mapping_->check_whole();
}

void WeightFile::release(std::span<const std::byte> bytes) const {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::span<const std::byte> file = mapping_->bytes();
  // Inwards: the pages at both ends may hold a neighbour's bytes.
  const auto offset = static_cast<std::size_t>(bytes.data() - file.data());
  const std::size_t begin = (offset + page - 1) / page * page;
  const std::size_t end = (offset + bytes.size()) / page * page;
  // Advice only: where the kernel does not take it, nothing but memory is lost.
  if (begin < end) ::madvise(const_cast<std::byte*>(file.data() + begin), end - begin, MADV_DONTNEED);
}

void WeightFile::prefetch(std::span<const std::byte> bytes) const {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::span<const std::byte> file = mapping_->bytes();
  const auto offset = static_cast<std::size_t>(bytes.data() - file.data());
  const std::size_t begin = offset / page * page;
  const std::size_t end = offset + bytes.size();
  if (begin < end) ::madvise(const_cast<std::byte*>(file.data() + begin), end - begin, MADV_WILLNEED);
}

}  // namespace rometrace

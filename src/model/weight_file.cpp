#include "rometrace/model/weight_file.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "model/mapping.hpp"
#include "rometrace/error.hpp"

namespace rometrace {

Mapping::Mapping(const InputFile& file) : size_(static_cast<std::size_t>(file.size())) {
  if (!file.is_regular()) throw Error(file.label() + ": is not a regular file, so it cannot be mapped into memory");
  if (size_ == 0) throw Error(file.label() + ": is empty");
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (address == MAP_FAILED) {
    throw Error(file.label() + ": cannot be mapped into memory: " + std::generic_category().message(errno));
  }
  begin_ = static_cast<const std::byte*>(address);
}

Mapping::~Mapping() {
  ::munmap(const_cast<std::byte*>(begin_), size_);
}

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

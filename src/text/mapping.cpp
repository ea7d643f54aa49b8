#include "text/mapping.hpp"

#include <sys/mman.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <utility>

#include "rometrace/error.hpp"

namespace rometrace {
namespace {

/// A file that is mapped, or was: places are used again, but never freed, as a signal handler may be reading them.
struct MappedFile {
  std::atomic<const std::byte*> begin = nullptr;  // null where nothing is mapped; written last, read first
  std::size_t size = 0;
  std::string label;
  MappedFile* next = nullptr;
};

// A signal handler is given an address and nothing else, so these are the process's.
std::atomic<MappedFile*> mapped_files = nullptr;
std::mutex mapped_files_change;

void add_mapped_file(std::span<const std::byte> bytes, const std::string& label) {
  const std::scoped_lock lock(mapped_files_change);
  auto* place = mapped_files.load();
  while (place != nullptr && place->begin != nullptr) place = place->next;
  const bool is_new = place == nullptr;
  if (is_new) place = new MappedFile;
  place->size = bytes.size();
  place->label = label;
  place->begin = bytes.data();
  if (!is_new) return;
  place->next = mapped_files.load();
  mapped_files = place;
}

void remove_mapped_file(const std::byte* begin) {
  const std::scoped_lock lock(mapped_files_change);
  for (auto* place = mapped_files.load(); place != nullptr; place = place->next) {
    if (place->begin == begin) place->begin = nullptr;
  }
}

}  // namespace

const char* mapped_file_at(const void* address) noexcept {
  const auto sought = reinterpret_cast<std::uintptr_t>(address);
  for (const auto* place = mapped_files.load(); place != nullptr; place = place->next) {
    const auto begin = reinterpret_cast<std::uintptr_t>(place->begin.load());
    if (begin != 0 && begin <= sought && sought - begin < place->size) return place->label.c_str();
  }
  return nullptr;
}

Mapping::Mapping(InputFile file) : file_(std::move(file)), size_(static_cast<std::size_t>(file_.size())) {
  if (!file_.is_regular()) throw Error(label() + ": is not a regular file, so it cannot be mapped into memory");
  if (size_ == 0) throw Error(label() + ": is empty");
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file_.descriptor(), 0);
  if (address == MAP_FAILED) {
    throw Error(label() + ": cannot be mapped into memory: " + std::generic_category().message(errno));
  }
  begin_ = static_cast<const std::byte*>(address);
  add_mapped_file(bytes(), label());
}

Mapping::~Mapping() {
  remove_mapped_file(begin_);
  ::munmap(const_cast<std::byte*>(begin_), size_);
}

void Mapping::check_whole() const {
  struct stat now {};
  if (::fstat(file_.descriptor(), &now) != 0 || static_cast<std::uint64_t>(now.st_size) >= file_.size()) return;
  throw InputLost(label() + ": was cut short while it was used: " + std::to_string(file_.size()) +
                  " bytes when it was opened, " + std::to_string(now.st_size) +
                  " now; let the file be while rometrace runs, and begin again");
}

}  // namespace rometrace

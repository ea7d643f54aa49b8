#include "cli/machine/freed_memory.hpp"

#include <sys/types.h>

#include <cstddef>
#include <string>

// jemalloc's, where it is linked.
extern "C" [[gnu::weak]] int mallctl(const char* name, void* old_value, std::size_t* old_size, void* new_value,
                                     std::size_t new_size);

namespace rometrace::cli {

void give_back_freed_memory() {
  if (mallctl == nullptr) return;
  ssize_t milliseconds = 1000;
  const auto set = [&](const std::string& name) {
    mallctl(name.c_str(), nullptr, nullptr, &milliseconds, sizeof milliseconds);
  };
  set("arenas.dirty_decay_ms");  // of those to come
  unsigned arenas = 0;
  std::size_t size = sizeof arenas;
  if (mallctl("arenas.narenas", &arenas, &size, nullptr, 0) != 0) return;
  for (unsigned arena = 0; arena < arenas; ++arena) set("arena." + std::to_string(arena) + ".dirty_decay_ms");
}

}  // namespace rometrace::cli

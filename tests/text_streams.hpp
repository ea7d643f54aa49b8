#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>

#include "text/text_stream.hpp"

namespace rometrace::testing {

/// A file of these bytes, which must outlive it, read `step` bytes at a time.
inline TextStream stream_of(std::string_view bytes, std::size_t step = TextStream::kStep,
                            std::size_t most = kMostUnpacked) {
  return {"facts",
          [bytes](std::span<std::byte> buffer) mutable {
            const auto count = std::min(buffer.size(), bytes.size());
            std::memcpy(buffer.data(), bytes.data(), count);
            bytes.remove_prefix(count);
            return count;
          },
          step, most};
}

}  // namespace rometrace::testing

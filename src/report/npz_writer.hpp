#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/zip_writer.hpp"

namespace rometrace {

/// Makes a file as numpy.savez does: an archive with an entry for each array, little-endian and row-major. A shape
/// without a length is that of a single value.
class NpzWriter {
 public:
  using Shape = std::vector<std::int64_t>;

  void add(std::string_view name, std::span<const float> values, const Shape& shape = {});
  void add(std::string_view name, std::span<const double> values, const Shape& shape = {});
  void add(std::string_view name, std::span<const std::int64_t> values, const Shape& shape = {});
  void add_flag(std::string_view name, bool value);

  /// Texts, as code points, all as long as the longest; bytes that are no UTF-8 are U+FFFD.
  void add_texts(std::string_view name, std::span<const std::string> texts, const Shape& shape = {});

  /// All of it: the file.
  std::string bytes() const { return zip_.bytes(); }

 private:
  void add_array(std::string_view name, const std::string& type, const Shape& shape, std::string_view values);

  ZipWriter zip_;
};

}  // namespace rometrace

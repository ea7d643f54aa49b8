#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "rometrace/edit/edit_details.hpp"
#include "rometrace/model/weight_file.hpp"

// What reads edit files, without libtorch, so that it can be fuzzed.

namespace rometrace {

inline constexpr const char* kEditMetadataKey = "rometrace";
inline constexpr const char *kEndingOfU = ".u", *kEndingOfR = ".r";  ///< behind a tensor's name

/// A matrix of the record with its change, inside the file's bytes.
struct MatrixRecord {
  std::string tensor;
  std::int64_t layer = 0;
  std::string sha256_before, sha256_after;
  double change_norm = 0, original_norm = 0;
  TensorView u, r;  ///< [n, in], [n, out]: F32, finite
};

struct EditRecord {
  EditDetails details;
  std::vector<MatrixRecord> matrices;
  nlohmann::ordered_json json;  ///< the whole record, as it stands there
};

/// The edit file of which `bytes` are all; see read_edit_file(). `label` opens the messages. Throws Error.
EditRecord read_edit_record(std::span<const std::byte> bytes, const std::string& label);

}  // namespace rometrace

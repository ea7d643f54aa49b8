#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rometrace/edit/edit_details.hpp"
#include "rometrace/edit/rome.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/model/matrix_change.hpp"
#include "rometrace/model/model_record.hpp"

namespace rometrace {

/// A matrix that an edit changes.
struct EditedMatrix {
  MatrixChange change;
  double change_norm = 0, original_norm = 0;  ///< as ChangedMatrix has them
};

/// A layer's change as an edit file has it: u and r rounded to float32, hashes and norms over the model as it is.
/// Throws Error as apply_change() does.
EditedMatrix edited_matrix(const Decoder& model, const LayerChange& change);

/// An edit of a model: n facts rewritten by a change of rank n in each of some matrices.
struct Edit : EditDetails {
  std::vector<EditedMatrix> matrices;  ///< at least one, each of another tensor
};

/// The edit's record, schema "rometrace/edit/1" (share/rometrace/schema/edit-1.schema.json): all but u and r.
nlohmann::ordered_json to_json(const Edit& edit);

/// The bytes of its file: safetensors with `<tensor>.u` [n, in] and `<tensor>.r` [n, out], float32, for each matrix,
/// and the record as JSON text under the metadata key `rometrace`. What parse_edit_file() would refuse is an assertion.
std::string edit_file_bytes(const Edit& edit);

/// An edit file that has been read.
struct EditFile {
  std::string label;              ///< the file, as messages show it
  std::string sha256;             ///< of its bytes
  Edit edit;                      ///< its changes have `label` as their source
  nlohmann::ordered_json record;  ///< whole, as it stands in the file

  EditMark mark() const;
};

/// Reads one; nothing of it is looked up in a model. Throws Error, one line: not a safetensors file or cut short (see
/// SafetensorsFile), no record, another schema, a field that is missing or has another type, a matrix without its u or
/// r or of another shape than the record says, tensors that are of no matrix, numbers that are not finite.
EditFile read_edit_file(const std::filesystem::path& path);

/// The same from the file's bytes; `label` opens the messages.
EditFile parse_edit_file(std::span<const std::byte> bytes, const std::string& label);

}  // namespace rometrace

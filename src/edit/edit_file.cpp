#include "rometrace/edit/edit_file.hpp"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <set>
#include <utility>

#include "edit/edit_record.hpp"
#include "model/safetensors_writer.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const EditedMatrix& matrix) {
  return {{"tensor", to_valid_utf8(matrix.change.tensor)},
          {"layer", matrix.change.layer},
          {"sha256_before", matrix.change.sha256_before},
          {"sha256_after", matrix.change.sha256_after},
          {"change_norm", matrix.change_norm},
          {"original_norm", matrix.original_norm}};
}

TensorView view_of(const at::Tensor& tensor, const std::string& name) {
  TORCH_INTERNAL_ASSERT(tensor.scalar_type() == at::kFloat && tensor.device().is_cpu() && tensor.is_contiguous());
  return {name, "F32", tensor.sizes().vec(), {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

/// In memory of its own.
at::Tensor copy_of(const TensorView& view) {
  auto factor = at::empty(view.shape, at::kFloat);
  std::memcpy(factor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return factor;
}

}  // namespace

EditedMatrix edited_matrix(const Decoder& model, const LayerChange& change) {
  const auto place = model.mlp_output_matrix(change.layer);
  EditedMatrix matrix;
  auto& made = matrix.change;
  made.tensor = place.tensor;
  made.layer = change.layer;
  made.u = change.u.to(at::kFloat).contiguous();
  made.r = change.r.to(at::kFloat).contiguous();
  const auto result = apply_change(model.checkpoint(), made, place);
  made.sha256_before = result.sha256_before;
  made.sha256_after = result.sha256_after;
  matrix.change_norm = result.change_norm;
  matrix.original_norm = result.original_norm;
  return matrix;
}

Json to_json(const Edit& edit) {
  Json templates = Json::array();
  for (const auto& text : edit.templates) templates.push_back(to_valid_utf8(text));
  Json matrices = Json::array();
  for (const auto& matrix : edit.matrices) matrices.push_back(to_json(matrix));
  Json moment = nullptr;
  if (edit.moment) {
    moment = {
        {"name", to_valid_utf8(edit.moment->name)}, {"sha256", edit.moment->sha256}, {"tokens", edit.moment->tokens}};
  }
  return {{"schema", kEditSchema},
          {"rometrace", kVersion},
          {"method", edit.method},
          {"templates", std::move(templates)},
          {"seed", edit.seed ? Json(*edit.seed) : Json(nullptr)},
          {"hyperparameters", edit.hyperparameters},
          {"moment", std::move(moment)},
          {"model", to_json(edit.model)},
          {"made_on", edit.made_on},
          {"requests", edit.requests},
          {"matrices", std::move(matrices)},
          {"perplexity", edit.perplexity},
          {"seconds", edit.seconds}};
}

std::string edit_file_bytes(const Edit& edit) {
  std::vector<TensorView> tensors;
  for (const auto& matrix : edit.matrices) {
    tensors.push_back(view_of(matrix.change.u, matrix.change.tensor + kEndingOfU));
    tensors.push_back(view_of(matrix.change.r, matrix.change.tensor + kEndingOfR));
  }
  const auto record = to_json(edit).dump(-1, ' ', false, Json::error_handler_t::replace);
  auto bytes = safetensors_header(tensors, {{kEditMetadataKey, record}});
  for (const auto& tensor : tensors) {
    bytes.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  }
  return bytes;
}

EditMark EditFile::mark() const {
  EditMark mark;
  mark.sha256 = sha256;
  mark.method = edit.method;
  std::set<std::int64_t> layers;
  for (const auto& matrix : edit.matrices) layers.insert(matrix.change.layer);
  mark.layers.assign(layers.begin(), layers.end());
  mark.requests = static_cast<std::int64_t>(edit.requests.size());
  return mark;
}

EditFile parse_edit_file(std::span<const std::byte> bytes, const std::string& label) {
  auto record = read_edit_record(bytes, label);
  EditFile file;
  file.label = label;
  Sha256 hash;
  hash.update(bytes);
  file.sha256 = hash.hex_digest();
  static_cast<EditDetails&>(file.edit) = std::move(record.details);
  for (const auto& from : record.matrices) {
    auto& matrix = file.edit.matrices.emplace_back();
    matrix.change = {from.tensor,       from.layer, copy_of(from.u), copy_of(from.r), from.sha256_before,
                     from.sha256_after, label};
    matrix.change_norm = from.change_norm;
    matrix.original_norm = from.original_norm;
  }
  file.record = std::move(record.json);
  return file;
}

EditFile read_edit_file(const std::filesystem::path& path) {
  const auto bytes = read_text_file(path);
  return parse_edit_file(std::as_bytes(std::span(bytes)), label_of(path));
}

}  // namespace rometrace

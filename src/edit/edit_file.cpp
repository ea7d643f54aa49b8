#include "rometrace/edit/edit_file.hpp"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "model/safetensors_header.hpp"
#include "model/safetensors_writer.hpp"
#include "rometrace/error.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "rometrace/text/utf8.hpp"
#include "rometrace/version.hpp"
#include "text/json_shown.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;
using nlohmann::json;

constexpr const char* kMetadataKey = "rometrace";
constexpr std::string_view kU = ".u", kR = ".r";

bool is_digest(const json& value) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  if (!value.is_string()) return false;
  const auto& text = value.get_ref<const std::string&>();
  return text.size() == 64 && text.find_first_not_of(kDigits) == std::string::npos;
}

// ---- Writing ----

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

// ---- Reading ----

/// A value inside the record, with its path for messages.
class Field {
 public:
  Field(const json& value, std::string where) : value_(value), where_(std::move(where)) {}

  const json& value() const { return value_; }

  [[noreturn]] void refuse(const std::string& expected) const {
    throw Error(where_ + " is " + shown(value_) + "; expected " + expected);
  }

  Field operator[](const char* name) const {
    if (!value_.is_object()) refuse("an object");
    const auto found = value_.find(name);
    if (found == value_.end()) throw Error(where_ + " has no " + in_quotes(name) + "; expected one");
    return {*found, where_ + (where_.ends_with(' ') ? "" : ".") + name};
  }

  std::vector<Field> items(std::size_t least) const {
    if (!value_.is_array() || value_.size() < least) refuse(least == 0 ? "a list" : "a list of at least one");
    std::vector<Field> items;
    for (std::size_t i = 0; i < value_.size(); ++i)
      items.emplace_back(value_[i], where_ + "[" + std::to_string(i) + "]");
    return items;
  }

  std::string text() const {
    if (!value_.is_string()) refuse("text");
    return value_.get<std::string>();
  }

  std::string name() const {
    auto name = text();
    if (name.empty()) refuse("a name");
    return name;
  }

  std::string digest() const {
    if (!is_digest(value_)) refuse("a SHA-256, 64 lower-case hex digits");
    return value_.get<std::string>();
  }

  std::int64_t whole() const {
    constexpr std::int64_t kMost = std::int64_t{1} << 53;  // what any JSON reader keeps
    if (!value_.is_number_integer() || value_ < 0 || value_ > kMost) refuse("a whole number from 0 up");
    return value_.get<std::int64_t>();
  }

  double norm() const {
    if (!value_.is_number() || !(value_.get<double>() >= 0) || !std::isfinite(value_.get<double>())) {
      refuse("a number from 0 up");
    }
    return value_.get<double>();
  }

  void object() const {
    if (!value_.is_object()) refuse("an object");
  }

 private:
  const json& value_;
  std::string where_;
};

ModelRecord read_model(const Field& model) {
  ModelRecord record;
  record.name = model["name"].text();
  record.architecture = model["architecture"].text();
  record.layers = model["layers"].whole();
  record.width = model["width"].whole();
  record.heads = model["heads"].whole();
  record.parameters = model["parameters"].whole();
  record.weights_sha256 = model["weights_sha256"].digest();
  return record;
}

void check_request(const Field& request) {
  request["prompt"].name();
  request["subject"].name();
  request["objects"]["new"].name();
  const auto old = request["objects"]["old"];
  if (!old.value().is_null()) old.name();
}

EditedMatrix read_matrix(const Field& field) {
  EditedMatrix matrix;
  matrix.change.tensor = field["tensor"].name();
  matrix.change.layer = field["layer"].whole();
  matrix.change.sha256_before = field["sha256_before"].digest();
  matrix.change.sha256_after = field["sha256_after"].digest();
  matrix.change_norm = field["change_norm"].norm();
  matrix.original_norm = field["original_norm"].norm();
  return matrix;
}

void check_schema(const json& record, const std::string& label) {
  const Field schema = Field(record, label + ": record ")["schema"];
  if (schema.value() == kEditSchema) return;
  const bool other_version = schema.value().is_string() && schema.text().starts_with("rometrace/edit/");
  throw Error(label + ": is of schema " + shown(schema.value()) + "; expected \"" + kEditSchema + "\"" +
              (other_version ? ": another version of rometrace made it" : ""));
}

/// All but the tensors. `text` is the record.
Edit read_record(const json& record, const std::string& label) {
  const Field fields(record, label + ": record ");
  Edit edit;
  edit.method = fields["method"].name();
  for (const auto& item : fields["templates"].items(0)) {
    edit.templates.push_back(item.text());
    if (edit.templates.back().find("{}") == std::string::npos) item.refuse("text with {} where the prompt stands");
  }
  if (const auto seed = fields["seed"]; !seed.value().is_null()) edit.seed = seed.whole();
  fields["hyperparameters"].object();
  if (const auto moment = fields["moment"]; !moment.value().is_null()) {
    edit.moment = EditMoment{moment["name"].text(), moment["sha256"].digest(), moment["tokens"].whole()};
  }
  edit.model = read_model(fields["model"]);
  for (const auto& item : fields["made_on"].items(0)) edit.made_on.push_back(item.digest());
  for (const auto& item : fields["requests"].items(1)) check_request(item);
  for (const auto& item : fields["matrices"].items(1)) edit.matrices.push_back(read_matrix(item));
  return edit;
}

bool all_finite(const at::Tensor& tensor) {
  const std::span numbers(tensor.const_data_ptr<float>(), static_cast<std::size_t>(tensor.numel()));
  return std::all_of(numbers.begin(), numbers.end(), [](float number) { return std::isfinite(number); });
}

/// u or r: a copy in memory of its own.
at::Tensor read_factor(const TensorView& view, std::size_t rank, const std::string& where) {
  const auto n = static_cast<std::int64_t>(rank);
  if (view.dtype != "F32" || view.shape.size() != 2 || view.shape.front() != n || view.shape.back() < 1) {
    throw Error(where + " is " + view.dtype + " " + shape_text(view.shape) + "; expected F32 [" + std::to_string(n) +
                ",...], a row for each request");
  }
  auto factor = at::empty(view.shape, at::kFloat);
  std::memcpy(factor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  if (!all_finite(factor)) throw Error(where + " holds a number that is not finite; expected none");
  return factor;
}

void read_factors(const std::vector<TensorView>& tensors, const std::string& label, Edit& edit) {
  std::map<std::string_view, const TensorView*> by_name;
  for (const auto& tensor : tensors) by_name.emplace(tensor.name, &tensor);
  std::set<std::string> named;
  for (auto& matrix : edit.matrices) {
    auto& change = matrix.change;
    if (!named.insert(change.tensor).second) {
      throw Error(label + ": the record has the matrix " + in_quotes(change.tensor) + " twice; expected each once");
    }
    const auto take = [&](std::string_view ending) {
      const auto name = change.tensor + std::string(ending);
      const auto found = by_name.find(name);
      if (found == by_name.end()) {
        throw Error(label + ": has no tensor " + in_quotes(name) + ", which the record's matrix needs");
      }
      const auto* view = found->second;
      by_name.erase(found);
      return read_factor(*view, edit.requests.size(), label + ": tensor " + in_quotes(name));
    };
    change.u = take(kU);
    change.r = take(kR);
    change.source = label;
  }
  if (!by_name.empty()) {
    throw Error(label + ": tensor " + in_quotes(by_name.begin()->first) +
                " is neither u nor r of a matrix in the record; expected no others");
  }
}

}  // namespace

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
          {"matrices", std::move(matrices)}};
}

std::string edit_file_bytes(const Edit& edit) {
  std::vector<TensorView> tensors;
  for (const auto& matrix : edit.matrices) {
    tensors.push_back(view_of(matrix.change.u, matrix.change.tensor + std::string(kU)));
    tensors.push_back(view_of(matrix.change.r, matrix.change.tensor + std::string(kR)));
  }
  const auto record = to_json(edit).dump(-1, ' ', false, json::error_handler_t::replace);
  auto bytes = safetensors_header(tensors, {{kMetadataKey, record}});
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
  const auto content = read_safetensors(bytes, label);
  const auto text = content.metadata.find(kMetadataKey);
  if (text == content.metadata.end()) {
    throw Error(label + ": has no record under \"" + kMetadataKey +
                "\"; expected an edit file, as rometrace edit -o makes it");
  }
  const auto record = parse_json(text->second, label + ": record", RepeatedNames::kRefuse);
  check_schema(record, label);
  EditFile file;
  file.label = label;
  file.edit = read_record(record, label);
  file.record = Json::parse(text->second);
  file.edit.hyperparameters = file.record["hyperparameters"];
  file.edit.requests = file.record["requests"];
  read_factors(content.tensors, label, file.edit);
  Sha256 hash;
  hash.update(bytes);
  file.sha256 = hash.hex_digest();
  return file;
}

EditFile read_edit_file(const std::filesystem::path& path) {
  const auto bytes = read_text_file(path);
  return parse_edit_file(std::as_bytes(std::span(bytes)), label_of(path));
}

}  // namespace rometrace

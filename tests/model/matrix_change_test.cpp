#include "rometrace/model/matrix_change.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "checks.hpp"
#include "edits.hpp"
#include "files.hpp"
#include "random_model.hpp"
#include "rometrace/error.hpp"
#include "rometrace/model/decoder.hpp"
#include "rometrace/text/digest.hpp"

namespace rometrace::matrix_change_test {
namespace {

using testing::bytes_of;
using testing::Contains;
using testing::message_of;
using testing::random_change;
using testing::random_factor;
using testing::RandomModel;
using testing::TemporaryFolder;

/// A model folder of GPT-2's layout with a matrix "w" of this shape and dtype beside nothing else.
at::Tensor write_matrix(const TemporaryFolder& folder, const at::Tensor& values, const std::string& dtype) {
  const auto shape = "[" + std::to_string(values.size(0)) + "," + std::to_string(values.size(1)) + "]";
  const std::string data(static_cast<const char*>(values.const_data_ptr()), values.nbytes());
  folder.write("model.safetensors",
               testing::safetensors_bytes(R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape +
                                              R"(,"data_offsets":[0,)" + std::to_string(data.size()) + "]}}",
                                          data));
  return values;
}

/// The definition: for each element the products in order, in double, then one rounding to the file's dtype.
at::Tensor defined(const at::Tensor& values, const at::Tensor& rows, const at::Tensor& columns) {
  auto sums = values.to(at::kDouble).clone().contiguous();
  auto* numbers = sums.data_ptr<double>();
  for (std::int64_t i = 0; i < values.size(0); ++i) {
    for (std::int64_t j = 0; j < values.size(1); ++j) {
      double sum = 0;
      for (std::int64_t k = 0; k < rows.size(0); ++k) {
        sum += double{rows.const_data_ptr<float>()[k * rows.size(1) + i]} *
               double{columns.const_data_ptr<float>()[k * columns.size(1) + j]};
      }
      numbers[i * values.size(1) + j] += sum;
    }
  }
  return sums.to(values.scalar_type());
}

std::string digest_of(const std::string& head, const at::Tensor& values) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(head)));
  hash.update({static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
  return hash.hex_digest();
}

TEST_CASE("a changed matrix is read as the file's values and the change, rounded to the file's dtype at once") {
  std::mt19937 engine(1);
  const std::vector<std::pair<std::string, at::ScalarType>> dtypes = {
      {"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"F64", at::kDouble}};
  for (const auto& [name, dtype] : dtypes) {
    CAPTURE(name);
    const TemporaryFolder folder;
    const auto values = write_matrix(folder, random_factor(5, 7, 1, engine).to(dtype), name);
    const auto rows = random_factor(3, 5, 1, engine), columns = random_factor(3, 7, 1, engine);
    const auto file = Checkpoint::open(folder.path());
    const auto checkpoint = file.with_change("w", rows, columns);
    const auto expected = defined(values, rows, columns);
    CHECK(at::equal(checkpoint.tensor("w", {5, 7}, dtype), expected));
    for (const auto asked : {at::kFloat, at::kDouble, at::kBFloat16}) {
      CHECK(at::equal(checkpoint.tensor("w", {5, 7}, asked), expected.to(asked)));
      CHECK(at::equal(checkpoint.rows("w", {5, 7}, asked, 2, 4), expected.slice(0, 2, 4).to(asked)));
    }
    CHECK(at::equal(file.tensor("w", {5, 7}, dtype), values));  // the other checkpoint, and the file, are as they were

    const auto more = random_factor(1, 5, 1, engine), more_columns = random_factor(1, 7, 1, engine);
    const auto twice = checkpoint.with_change("w", more, more_columns);
    const auto last = defined(expected, more, more_columns);
    CHECK(at::equal(twice.tensor("w", {5, 7}, dtype), last));
    const std::string head = name + " [5,7]\n";
    CHECK(twice.sha256("w", {5, 7}) ==
          std::vector{digest_of(head, values), digest_of(head, expected), digest_of(head, last)});
  }
}

TEST_CASE("a matrix that lies in the file in another order is changed in its own") {
  const TemporaryFolder folder;
  std::filesystem::copy(ROMETRACE_SOURCE_DIR "/tests/fixtures/torch/zip_2.bin", folder.path() / "pytorch_model.bin");
  std::mt19937 engine(2);
  const auto rows = random_factor(2, 4, 1, engine), columns = random_factor(2, 3, 1, engine);
  const auto file = Checkpoint::open(folder.path());
  const auto expected = defined(file.tensor("transposed", {4, 3}, at::kFloat), rows, columns);
  const auto checkpoint = file.with_change("transposed", rows, columns);
  CHECK(at::equal(checkpoint.tensor("transposed", {4, 3}, at::kFloat), expected));
  CHECK(at::equal(checkpoint.rows("transposed", {4, 3}, at::kFloat, 1, 3), expected.slice(0, 1, 3)));
  CHECK(checkpoint.sha256("transposed", {4, 3}).back() == digest_of("F32 [4,3]\n", expected));
}

TEST_CASE("threads, and the pieces in which a matrix is read, change no bit of it") {
  const TemporaryFolder folder;
  std::mt19937 engine(3);
  write_matrix(folder, random_factor(1500, 800, 1, engine), "F32");  // more elements than are read at once
  const auto checkpoint = Checkpoint::open(folder.path())
                              .with_change("w", random_factor(4, 1500, 1, engine), random_factor(4, 800, 1, engine));
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = checkpoint.tensor("w", {1500, 800}, at::kFloat);
  at::set_num_threads(3);
  const auto three = checkpoint.tensor("w", {1500, 800}, at::kFloat);
  at::set_num_threads(threads);
  CHECK(at::equal(one, three));
  for (std::int64_t row = 0; row < 1500; row += 499) {
    CHECK(at::equal(checkpoint.rows("w", {1500, 800}, at::kFloat, row, row + 1), one.slice(0, row, row + 1)));
  }
}

/// The folder's weights with another matrix in the place of one.
void write_edited(const TemporaryFolder& from, const TemporaryFolder& to, const std::string& tensor,
                  const at::Tensor& values) {
  std::filesystem::copy(from.path() / "config.json", to.path() / "config.json");
  std::ifstream stream(from.path() / "model.safetensors", std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  const auto header = nlohmann::json::parse(bytes.substr(8, length));
  const std::size_t begin = header.at(tensor).at("data_offsets")[0];
  std::memcpy(bytes.data() + 8 + length + begin, values.const_data_ptr(), values.nbytes());
  to.write("model.safetensors", bytes);
}

at::Tensor logits_of(const Decoder& model) {
  const std::vector<std::int32_t> ids = {3, 1, 4, 1, 5};
  return model.logits(model.forward(ids, 2));
}

TEST_CASE(
    "a decoder with a change is the decoder of a file that has it, bit for bit, streamed and differentiable too") {
  const at::NoGradGuard no_grad;
  std::mt19937 engine(4);
  for (const std::int64_t inner : {32, 8}) {  // the second one's matrices are square: the layout decides, not the shape
    const TemporaryFolder folder, edited_folder;
    write_random_model(folder, {.layers = 3, .width = 8, .inner = inner}, engine);
    const auto original = Decoder::load(folder.path());
    const auto matrix = random_change(*original, 1, 2, engine);
    const auto place = original->mlp_output_matrix(1);
    CHECK(place.tensor == "transformer.h.1.mlp.c_proj.weight");
    CHECK(place.shape() == std::vector<std::int64_t>{inner, 8});
    write_edited(folder, edited_folder, place.tensor,
                 defined(original->checkpoint().tensor(place.tensor, place.shape(), at::kFloat), matrix.change.u,
                         matrix.change.r));
    const auto apart = logits_of(*Decoder::load(edited_folder.path()));
    CHECK_FALSE(at::equal(apart, logits_of(*original)));
    LoadOptions how;
    how.changes = {matrix.change};
    CHECK(at::equal(logits_of(*Decoder::load(folder.path(), how)), apart));
    for (const auto products : {Products::kFast, Products::kUnpacked}) {
      for (const auto dtype : {at::kFloat, at::kDouble}) {
        LoadOptions plain{dtype, at::kCPU, products, std::nullopt};
        const auto expected = logits_of(*Decoder::load(edited_folder.path(), plain));
        plain.changes = {matrix.change};
        CHECK(at::equal(logits_of(*Decoder::load(folder.path(), plain)), expected));
        plain.memory = 1;
        const auto streamed = Decoder::load(folder.path(), plain);
        CHECK(streamed->streamed());
        plain.changes.clear();
        CHECK(at::equal(logits_of(*streamed), logits_of(*Decoder::load(edited_folder.path(), plain))));
      }
    }
    CHECK(at::equal(logits_of(*Decoder::load(folder.path())), logits_of(*original)));
  }
}

TEST_CASE("changes of one matrix are applied one after the other, each from what the last one left") {
  const at::NoGradGuard no_grad;
  std::mt19937 engine(5);
  const TemporaryFolder folder;
  write_random_model(folder, {}, engine);
  const auto first = random_change(*Decoder::load(folder.path()), 0, 1, engine);
  LoadOptions how;
  how.changes = {first.change};
  const auto second = random_change(*Decoder::load(folder.path(), how), 0, 3, engine);
  CHECK(second.change.sha256_before == first.change.sha256_after);
  how.changes = {first.change, second.change};
  CHECK_NOTHROW(Decoder::load(folder.path(), how));
  how.changes = {second.change, first.change};
  CHECK(message_of<Error>([&] { Decoder::load(folder.path(), how); }) ==
        Contains("the edit was made for other weights: their SHA-256 is " + first.change.sha256_before));
}

TEST_CASE("the norms of a change are of what rounding leaves") {
  const TemporaryFolder folder;
  const auto values = at::empty({2, 2}, at::kHalf).fill_(1024);  // halves lie 1 apart here
  write_matrix(folder, values, "F16");
  MatrixChange change;
  change.tensor = "w";
  change.u = at::empty({1, 2}, at::kFloat).fill_(1);
  change.r = at::empty({1, 2}, at::kFloat).fill_(0.25);
  change.r.data_ptr<float>()[1] = 3;
  const auto checkpoint = Checkpoint::open(folder.path());
  const auto result = apply_change(checkpoint, change, {"w", 2, 2, /*transposed=*/true});
  CHECK(result.original_norm == 2048);
  CHECK(result.change_norm == std::sqrt(18.0));  // of the row of 0.25 nothing is left
  change.r.data_ptr<float>()[0] = 1e30F;
  CHECK(message_of<Error>([&] {
          apply_change(checkpoint, change, {"w", 2, 2, true});
        }) == Contains("is not finite in the file's dtype, F16"));
}

TEST_CASE("a change that does not belong to the model is refused in one line with its file") {
  std::mt19937 engine(6);
  const TemporaryFolder folder;
  write_random_model(folder, {}, engine);
  const auto model = Decoder::load(folder.path());
  const auto good = [&] {
    auto change = random_change(*model, 1, 1, engine).change;
    change.source = "miles.edit";
    return change;
  }();
  const auto refusal = [&](const auto& spoil) {
    LoadOptions how;
    how.changes = {good};
    spoil(how.changes.front());
    auto message = message_of<Error>([&] { Decoder::load(folder.path(), how); });
    CHECK(testing::is_one_line(message));
    CHECK(message.starts_with("miles.edit: tensor \""));
    return message;
  };
  CHECK(refusal([](auto& change) { change.layer = 2; }) == Contains("is of layer 2; this model has layers 0 to 1"));
  CHECK(refusal([](auto& change) { change.layer = 0; }) == Contains("expected \"transformer.h.0.mlp.c_proj.weight\""));
  CHECK(refusal([](auto& change) { change.tensor = "transformer.wte.weight"; }) ==
        Contains("is not what leads out of"));
  CHECK(refusal([&](auto& change) { change.u = random_factor(1, 31, 1, engine); }) ==
        Contains("u is [1,31] and r is [1,8]; expected [n,32] and [n,8]"));
  CHECK(refusal([&](auto& change) { change.r = random_factor(2, 8, 1, engine); }) == Contains("r is [2,8]"));
  CHECK(refusal([](auto& change) { change.sha256_before[0] ^= 1; }) == Contains("was made for other weights"));
  CHECK(refusal([](auto& change) { change.sha256_after[0] ^= 1; }) == Contains("do not lead to the weights"));
  CHECK(refusal([](MatrixChange& change) { change.u.data_ptr<float>()[0] += 1; }) ==
        Contains("do not lead to the weights"));
}

}  // namespace
}  // namespace rometrace::matrix_change_test

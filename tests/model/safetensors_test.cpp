#include "rometrace/model/safetensors.hpp"

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absent_files.hpp"
#include "checks.hpp"
#include "files.hpp"
#include "rometrace/error.hpp"

namespace rometrace::safetensors_test {
namespace {

using testing::bytes_of;
using testing::Contains;
using testing::message_of;
using testing::safetensors_bytes;
using testing::TemporaryFolder;

std::string refusal(const std::string& content) {
  const TemporaryFolder folder;
  const auto file = folder.write("model.safetensors", content);
  std::string message = message_of<Error>([&] { SafetensorsFile::open(file); });
  CHECK(testing::is_one_line(message));
  return message;
}

std::string text_of(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size()};
}

TEST_CASE("tensors come back with dtype, shape and bytes, in the order of their bytes") {
  const TemporaryFolder folder;
  const std::string header = R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},"__metadata__":{"format":"pt"},)"
                             R"("a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8],"more":1}}    )";
  const std::string floats = bytes_of<float>({1.5F, -2.0F});
  const auto path = folder.write("model.safetensors", safetensors_bytes(header, floats + "xyz"));
  const SafetensorsFile file = SafetensorsFile::open(path);
  REQUIRE(file.tensors().size() == 2);
  const TensorView& a = file.tensors()[0];
  CHECK(a.name == "a");
  CHECK(a.dtype == "F32");
  CHECK(a.shape == std::vector<std::int64_t>{1, 2});
  CHECK(text_of(a) == floats);
  CHECK(file.tensors()[1].name == "b");
  CHECK(text_of(file.tensors()[1]) == "xyz");
  CHECK(file.path() == path);
}

TEST_CASE("scalars, tensors without elements and files without tensors are good files") {
  const TemporaryFolder folder;
  const std::string header = R"({"empty":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},)"
                             R"("scalar":{"dtype":"F64","shape":[],"data_offsets":[0,8]},)"
                             R"("last":{"dtype":"BOOL","shape":[0],"data_offsets":[8,8]},)"
                             R"("half":{"dtype":"F4","shape":[2,3],"data_offsets":[8,11]}})";
  const SafetensorsFile file = SafetensorsFile::open(folder.write("f", safetensors_bytes(header, "12345678abc")));
  REQUIRE(file.tensors().size() == 4);
  CHECK(file.tensors()[0].bytes.empty());
  CHECK(text_of(file.tensors()[1]) == "12345678");
  CHECK(SafetensorsFile::open(folder.write("g", safetensors_bytes("{}", ""))).tensors().empty());
}

TEST_CASE("a file keeps its tensors through a move, a release and its own removal") {
  const TemporaryFolder folder;
  std::string data(1'000'000, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 % 251);
  const std::string header = R"({"a":{"dtype":"U8","shape":[1000000],"data_offsets":[0,1000000]}})";
  SafetensorsFile first = SafetensorsFile::open(folder.write("f", safetensors_bytes(header, data)));
  const SafetensorsFile file = std::move(first);
  std::filesystem::remove(folder.path() / "f");
  const TensorView& tensor = file.tensors()[0];
  CHECK(text_of(tensor) == data);
  file.release(tensor.bytes);
  CHECK(text_of(tensor) == data);
  file.release(tensor.bytes.subspan(5000, 100'000));
  file.release(tensor.bytes.subspan(10, 20));
  file.release({});
  CHECK(text_of(tensor) == data);
}

TEST_CASE("a file that is not of the format is refused with what it is") {
  CHECK(refusal("") == Contains("model.safetensors: is empty"));
  CHECK(refusal("1234567") == Contains("is 7 bytes long, too short"));
  CHECK(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 6431878936\n") ==
        Contains("is a Git LFS pointer, not the file itself; run `git lfs pull`"));
  CHECK(refusal("PK\x03\x04 and so on") == Contains("is a PyTorch file, not safetensors"));
  CHECK(refusal("<!DOCTYPE html><html>") == Contains("not a safetensors file: its header would be"));
  CHECK(refusal(std::string(8, '\xff')) == Contains("header would be 18446744073709551615 bytes long"));
  CHECK(refusal(std::string(8, '\0')) == Contains("its header is not a JSON object"));
  CHECK(refusal(safetensors_bytes("{}", "").substr(0, 9)) ==
        Contains("cut short: the header is 2 bytes long, and only 1"));
  const TemporaryFolder folder;
  CHECK(message_of<Error>([&] { SafetensorsFile::open(folder.path()); }) == Contains("is a folder; expected a file"));
  CHECK(message_of<Error>([&] { SafetensorsFile::open(folder.path() / "x"); }) == Contains("x: no such file"));
  CHECK(message_of<Error>([] { SafetensorsFile::open("/dev/null"); }) == Contains("is not a regular file"));
}

TEST_CASE("a header that does not fit its data is refused with tensor, found and expected") {
  const std::string two = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  // Each header stands before eight bytes of data.
  const std::vector<std::pair<std::string, const char*>> cases = {
      {"[]", "its header is not a JSON object"},
      {" {}", "its header is not a JSON object"},
      {std::string("{}\0 ", 4), "header: line 1, column 3: not JSON: a zero byte"},
      {"{\"a\"", "header: line 1, column 5: not JSON"},
      {"{\"\xff\":1}", "header: line 1, column 3: not JSON: invalid string: ill-formed UTF-8"},
      {"{\"a\":" + std::string(1'000'000, '['), "header: nested deeper than 256 levels"},
      {"{" + two + "," + two + "}", "header: the name \"a\" appears twice"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "the name \"dtype\" appears twice"},
      {R"({"a":[]})", "tensor \"a\": is []; expected an object"},
      {R"({"__metadata__":{"x":1}})", "__metadata__ is {\"x\":1}; expected strings by name"},
      {R"({"__metadata__":3})", "__metadata__ is 3; expected"},
      {R"({"a":{"shape":[2],"data_offsets":[0,8]}})", "tensor \"a\": has no dtype"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", "tensor \"a\": has no shape"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", "tensor \"a\": has no data_offsets"},
      {R"({"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}})", "dtype \"F33\" is not one of the format"},
      {R"({"a":{"dtype":3,"shape":[2],"data_offsets":[0,8]}})", "dtype 3 is not one of the format"},
      {R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", "shape is 2; expected a list of sizes"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "shape is [-2]; expected a list of sizes"},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", "shape is [2.0]; expected a list of sizes"},
      {R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", "shape is [[2]]; expected a list of sizes"},
      {R"({"a":{"dtype":"F32","shape":[1e30],"data_offsets":[0,8]}})", "shape is [1e+30]; expected a list of sizes"},
      {R"({"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8]}})", "expected a list of sizes"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", "larger than any file"},
      // 2^59 + 2 elements of 32 bits: 64 if counted modulo 2^64.
      {R"({"a":{"dtype":"F32","shape":[576460752303423490],"data_offsets":[0,8]}})", "larger than any file"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})",
       "shape [3] of F32 takes 12 bytes, but data_offsets [0,8] hold 8"},
      {R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,8]}})", "shape is [3], not a whole number of bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "data_offsets are [8,0]; expected [begin, end]"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", "data_offsets are [-8,0]; expected"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,16]}})", "data_offsets are [0,8,16]; expected"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":"0-8"}})", "data_offsets are \"0-8\"; expected"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
       "tensor \"b\": its data begin at 2, but the data before them end at 4"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "tensor \"b\": its data begin at 4, but the data before them end at 1"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "its data begin at 4, but the data before them end at 0"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})",
       "cut short: the tensors take 12 bytes, and the file has 8 of them"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "4 bytes follow the last tensor; expected none"},
      {"{}", "8 bytes follow the last tensor; expected none"},
      {R"({"a\n\u001b[31m":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", "tensor \"a\\n\\x1b[31m\": shape [3]"},
  };
  for (const auto& [header, expected] : cases) {
    CAPTURE(expected);
    CHECK(refusal(safetensors_bytes(header, "12345678")) == Contains(expected));
  }
}

TEST_CASE("a trained model's file has its tensors where the header says") {
  const std::filesystem::path path = ROMETRACE_SOURCE_DIR "/../shared/models/gpt2-lyrics/model.safetensors";
  if (testing::is_absent(path)) return;
  const SafetensorsFile file = SafetensorsFile::open(path);
  CHECK(file.tensors().size() == 61);
  CHECK(file.tensors()[0].name == "transformer.wte.weight");
  CHECK(file.tensors()[0].shape == std::vector<std::int64_t>{1000, 128});
}

}  // namespace
}  // namespace rometrace::safetensors_test

// Prints the embedding of each image, one line per image: embed market1501.onnx a.ppm b.ppm ...
//
// An image is a binary PPM file (P6: RGB, 8 bits) that already has the size of the model's input. In a program that has
// OpenCV, replace `read_ppm` with cv::imread, cv::cvtColor(image, image, cv::COLOR_BGR2RGB) and
// cv::resize(image, image, {width, height}, 0, 0, cv::INTER_AREA).
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

// Returns uint8 [height, width, 3].
std::vector<uint8_t> read_ppm(const std::string& path, int64_t height, int64_t width) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int64_t columns = 0, rows = 0, largest = 0;
  file >> magic >> columns >> rows >> largest;
  file.get();  // the one space after the header
  if (!file || magic != "P6" || largest != 255) throw std::runtime_error(path + " is not a binary PPM file of 8 bits");
  if (rows != height || columns != width)
    throw std::runtime_error(path + " has " + std::to_string(columns) + "x" + std::to_string(rows) +
                             " pixels: resize it to " + std::to_string(width) + "x" + std::to_string(height));
  std::vector<uint8_t> pixels(height * width * 3);
  if (!file.read(reinterpret_cast<char*>(pixels.data()), pixels.size()))
    throw std::runtime_error(path + " is cut off");
  return pixels;
}

int main(int argc, char** argv) try {
  if (argc < 3) throw std::runtime_error("usage: embed MODEL.onnx IMAGE.ppm ...");
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "embed");
  Ort::Session session(env, argv[1], Ort::SessionOptions{});
  // Keep the type's owner alive: the shape is read from it.
  auto type = session.GetInputTypeInfo(0);
  auto info = type.GetTensorTypeAndShapeInfo();
  auto shape = info.GetShape();  // [N, height, width, 3]
  if (info.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 || shape.size() != 4)
    throw std::runtime_error("the model does not take uint8 images: export it with --input=uint8");

  std::vector<uint8_t> images;
  for (int i = 2; i < argc; ++i) {
    auto pixels = read_ppm(argv[i], shape[1], shape[2]);
    images.insert(images.end(), pixels.begin(), pixels.end());
  }
  shape[0] = argc - 2;
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto input = Ort::Value::CreateTensor<uint8_t>(memory, images.data(), images.size(), shape.data(), shape.size());
  Ort::AllocatorWithDefaultOptions allocator;
  auto input_name = session.GetInputNameAllocated(0, allocator), output_name = session.GetOutputNameAllocated(0, allocator);
  std::array<const char*, 1> inputs{input_name.get()}, outputs{output_name.get()};
  auto result = session.Run(Ort::RunOptions{}, inputs.data(), &input, 1, outputs.data(), 1);

  int64_t width = result[0].GetTensorTypeAndShapeInfo().GetShape()[1];
  const float* embedding = result[0].GetTensorData<float>();  // [N, width]
  for (int64_t i = 0; i < shape[0]; ++i)
    for (int64_t j = 0; j < width; ++j) std::printf("%.9g%c", embedding[i * width + j], j + 1 < width ? ' ' : '\n');
} catch (const std::exception& error) {  // Ort::Exception too
  std::fprintf(stderr, "embed: %s\n", error.what());
  return 1;
}
